"""LoRA: an adapter changes nothing at first, only it is trained, and the reference is the model without it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from small_policies import model, sample, trained

from searchr1.algorithms.grpo import GRPO
from searchr1.errors import UserError
from searchr1.training.checkpoint import load_checkpoint, save_checkpoint
from searchr1.training.optimization import Critic, Lora, Optimization
from searchr1.training.optimizer import Optimizer
from searchr1.training.packing import pack
from searchr1.training.policy import Policy, load_model

pytest.importorskip("peft", reason="needs pip install 'searchr1[lora]'")

STEP = [sample(length, seed, reward=seed % 2) for seed, length in enumerate((9, 12, 7, 10))]
LORA = Lora(rank=4, alpha=8)
FAST = Optimization(learning_rate=1e-2)


def policy(kind: str = "qwen2", lora: Lora = LORA, **options: object) -> Policy:
    return Policy(model(kind), FAST, reference=True, lora=lora, **options)  # type: ignore[arg-type]


def learn(made: Policy, updates: int = 2) -> None:
    samples = STEP
    signs = torch.cat([torch.full((sum(s.mask),), 1.0 if s.reward else -1.0) for s in samples])
    reference = made.score(pack(samples), reference=True)
    for _ in range(updates):
        made.update(pack(samples, advantages_N=signs, reference_N=reference), GRPO(kl="k3").loss)


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_a_new_adapter_changes_no_log_probability_and_has_all_the_trainable_weights(kind: str) -> None:
    plain, adapted = Policy(model(kind)), policy(kind)
    assert torch.equal(plain.score(pack(STEP)), adapted.score(pack(STEP)))
    names = [name for name, value in adapted.model.named_parameters() if value.requires_grad]
    assert names
    assert all(".lora_" in name for name in names)
    assert not any("lm_head" in name or "embed" in name for name in names)


def test_learning_changes_the_adapter_and_neither_the_weights_nor_the_reference() -> None:
    made = policy()
    before = copy.deepcopy(model().state_dict())
    reference = made.score(pack(STEP), reference=True)
    learn(made)
    assert torch.equal(made.score(pack(STEP), reference=True), reference)
    assert not torch.allclose(made.score(pack(STEP)), reference)
    for name, value in made.model.state_dict().items():
        if ".lora_" not in name:
            assert torch.equal(value, before[name.replace(".base_layer.", ".")]), name


def test_a_checkpoint_is_a_plain_model_that_says_the_same_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    made = policy()
    learn(made)
    folder = save_checkpoint(tmp_path, 1, made, None, {"step": 1})
    plain = load_model(folder)
    assert set(plain.state_dict()) == set(model().state_dict())
    assert torch.allclose(Policy(plain).score(pack(STEP)), made.score(pack(STEP)), atol=1e-5)

    resumed = policy()
    assert load_checkpoint(folder, resumed) == {"step": 1}
    learn(made), learn(resumed)
    for (name, ours), (_, theirs) in zip(
        made.model.state_dict().items(), resumed.model.state_dict().items(), strict=True
    ):
        assert torch.equal(ours, theirs), name


def test_a_checkpoint_with_an_adapter_is_refused_by_a_run_without_one(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, 1, policy(), None, {})
    with pytest.raises(UserError, match="adapter"):
        load_checkpoint(folder, Policy(model(), FAST))


def test_a_bfloat16_base_keeps_a_float32_adapter_and_learns() -> None:
    made = policy(lora=Lora(rank=2, base_precision="bfloat16"))
    assert {str(p.dtype) for p in made.model.parameters() if p.requires_grad} == {"torch.float32"}
    before = made.score(pack(STEP))
    learn(made)
    assert not torch.equal(made.score(pack(STEP)), before)
    assert {value.dtype for _, value in made.weights()} == {torch.float32}


@pytest.mark.parametrize("backbone", ["shared", "separate"])
def test_a_critic_learns_beside_an_adapter(backbone: str) -> None:
    made = policy(critic=Critic(backbone=backbone, learning_rate=1e-2))  # type: ignore[arg-type]
    returns = torch.ones(trained(STEP))
    batches = pack(STEP)
    first = (made.values(batches) - returns).square().mean()
    for _ in range(30):
        made.update(batches, lambda b, o: ((o.values_N - 1.0).square().mean() / len(batches), {}))
    assert (made.values(batches) - returns).square().mean() < first / 4


def test_layers_that_do_not_exist_are_refused() -> None:
    with pytest.raises(UserError, match=r"lora\.layers: .*nowhere"):
        policy(lora=Lora(rank=2, layers=("nowhere",)))


def test_a_base_in_bfloat16_keeps_the_frequencies_of_its_positions(tmp_path: Path) -> None:
    """Rounded to bfloat16 they are off by whole turns after some thousand tokens."""
    base = model(max_position_embeddings=4096)
    frequencies = {name: value.clone() for name, value in base.named_buffers() if "inv_freq" in name}
    made = Policy(base, FAST, lora=Lora(rank=4, base_precision="bfloat16"))
    kept = dict(made.model.named_buffers())
    assert frequencies
    assert all(torch.equal(kept[name], value) for name, value in frequencies.items())
    far = pack([sample(3000, 1)])
    again = Policy(load_model(save_checkpoint(tmp_path, 1, made, None, {})))
    assert (made.score(far) - again.score(far)).abs().mean() < 0.05


def test_an_adapter_is_not_put_on_another_base(tmp_path: Path) -> None:
    made = policy()
    learn(made)
    folder = save_checkpoint(tmp_path, 1, made, None, {})
    other = Policy(model(seed=1), FAST, reference=True, lora=LORA)
    with pytest.raises(UserError, match="the model that the run started from has changed since"):
        load_checkpoint(folder, other)


def test_a_reference_is_the_model_that_the_run_started_from(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, 1, Policy(model(), FAST, reference=True), None, {})
    load_checkpoint(folder, Policy(model(), FAST, reference=True))
    load_checkpoint(folder, Policy(model(seed=1), FAST))  # nobody needs the start
    with pytest.raises(UserError, match="has changed since"):
        load_checkpoint(folder, Policy(model(seed=1), FAST, reference=True))


def test_8_bit_moments_have_8_bits() -> None:
    optim = pytest.importorskip("bitsandbytes.optim", reason="needs pip install 'searchr1[8bit]'")
    layer = torch.nn.Linear(128, 64)  # smaller ones keep 32 bits
    made = Optimizer(layer, Optimization(kind="adamw_8bit"), Optimization())
    assert isinstance(made.adamw, optim.AdamW8bit)
    layer(torch.ones(1, 128)).sum().backward()
    made.step(made.norm(), 0, 1.0)
    assert made.adamw.state[layer.weight]["state1"].dtype == torch.uint8
    assert type(Optimizer(layer, Optimization(), Optimization()).adamw) is torch.optim.AdamW


def test_an_8_bit_optimizer_learns_and_resumes(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="needs pip install 'searchr1[8bit]'")
    options = Optimization(learning_rate=1e-2, kind="adamw_8bit")
    made = Policy(model(), options, reference=True)
    learn(made)
    folder = save_checkpoint(tmp_path, 1, made, None, {})
    resumed = Policy(model(), options, reference=True)
    load_checkpoint(folder, resumed)
    assert torch.equal(resumed.score(pack(STEP)), made.score(pack(STEP)))
    assert not torch.allclose(made.score(pack(STEP)), made.score(pack(STEP), reference=True))
