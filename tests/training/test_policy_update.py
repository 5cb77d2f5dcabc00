"""One optimiser step: what it changes, what it refuses, and that it pulls in the right direction."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from small_policies import MODELS, advantages, model, one_by_one, sample, trained
from torch import Tensor

from searchr1.algorithms.grpo import GRPO
from searchr1.errors import NumericalError, UserError
from searchr1.training.logprobs import TokenScores
from searchr1.training.optimization import Optimization
from searchr1.training.packing import PackedBatch, pack
from searchr1.training.policy import Policy, load_model, load_policy

SAMPLES = [sample(n, n) for n in (9, 4, 12, 6, 7)]
FAST = Optimization(learning_rate=1e-2, weight_decay=0.0)


def weights(policy: Policy) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in policy.weights()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_scores_come_back_in_sample_order_from_any_packing() -> None:
    policy = Policy(model(), temperature=0.8)
    with torch.no_grad():
        expected, _ = one_by_one(policy.model, SAMPLES, 0.8)
    for max_tokens in (12, 30, 4096):
        scores = policy.score(pack(SAMPLES, max_tokens=max_tokens))
        torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)
        assert not scores.requires_grad


def test_advantage_moves_log_probabilities_its_way() -> None:
    policy = Policy(model(), FAST)
    batches = pack(SAMPLES)
    before = policy.score(batches)
    signs = torch.tensor([1.0 if i % 2 else -1.0 for i in range(trained(SAMPLES))])
    for _ in range(10):
        old = policy.score(batches)
        fresh = [  # on-policy every time
            PackedBatch(**{**fields(b), "behaviour_N": old[b.flat_N], "advantages_N": signs[b.flat_N]}) for b in batches
        ]
        policy.update(fresh, GRPO().loss)
    moved = (policy.score(batches) - before) * signs
    assert moved.mean() > 0.2


def fields(batch: PackedBatch) -> dict[str, object]:
    return {name: getattr(batch, name) for name in batch.__dataclass_fields__}


@pytest.mark.parametrize("kl", ["k2", "k3"])
def test_kl_loss_pulls_towards_the_reference(kl: str) -> None:
    """With no advantage anywhere the distance to the reference must fall (its sign was once wrong in Search-R1)."""
    policy = Policy(model(seed=1), Optimization(learning_rate=3e-3, weight_decay=0.0), reference=True)
    with torch.no_grad():
        for p in policy.model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    reference = policy.score(pack(SAMPLES), reference=True)
    assert (policy.score(pack(SAMPLES)) - reference).abs().max() > 0.05
    batches = pack(SAMPLES, reference_N=reference)
    algorithm = GRPO(kl=kl, kl_coefficient=1.0)  # type: ignore[arg-type]
    distances = []
    for _ in range(15):
        old = policy.score(batches)
        fresh = [PackedBatch(**{**fields(b), "behaviour_N": old[b.flat_N]}) for b in batches]
        distances.append(policy.update(fresh, algorithm.loss)["reference_kl"])
    assert distances[-1] < 0.5 * distances[0]
    assert torch.equal(policy.score(pack(SAMPLES), reference=True), reference)  # the reference itself stays


def test_metrics_do_not_depend_on_the_micro_batches() -> None:
    results = []
    for max_tokens in (12, 4096):
        policy = Policy(model(), FAST)
        batches = pack(SAMPLES, advantages_N=advantages(SAMPLES), max_tokens=max_tokens)
        results.append(
            (len(batches), policy.update(batches, GRPO(entropy_bonus=0.1).loss), policy.score(pack(SAMPLES)))
        )
    (many, split, after_split), (one, whole, after_whole) = results
    assert many > one == 1
    assert split == pytest.approx(whole, rel=1e-4)
    assert split.keys() == {
        "loss", "grad_norm", "learning_rate", "clip_fraction", "kl", "entropy", "ratio_max", "difference_max",
        "llds", "good_logprob", "good_tokens",
    }  # fmt: skip
    torch.testing.assert_close(after_split, after_whole, rtol=0, atol=1e-3)


def test_updates_are_bit_for_bit_repeatable() -> None:
    runs = []
    for _ in range(2):
        policy = Policy(model(), FAST)
        batches = pack(SAMPLES, advantages_N=advantages(SAMPLES), max_tokens=24)
        metrics = [policy.update(batches, GRPO().loss) for _ in range(3)]
        runs.append((metrics, weights(policy)))
    assert runs[0][0] == runs[1][0]
    assert same(runs[0][1], runs[1][1])


def test_gradient_checkpointing_changes_no_value() -> None:
    batches = pack(SAMPLES, advantages_N=advantages(SAMPLES))
    results = []
    for enabled in (False, True):
        policy = Policy(model(), Optimization(learning_rate=1e-2, gradient_checkpointing=enabled))
        policy.update(batches, GRPO().loss)
        results.append(policy.score(batches))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-6)


def test_bfloat16_decoder_trains_float32_weights() -> None:
    policy = Policy(model(), Optimization(learning_rate=1e-3, precision="bfloat16"))
    before = weights(policy)
    metrics = policy.update(pack(SAMPLES, advantages_N=advantages(SAMPLES)), GRPO().loss)
    assert math.isfinite(metrics["loss"])
    assert all(value.dtype == torch.float32 for value in weights(policy).values())
    assert not same(before, weights(policy))


def test_dropout_is_off() -> None:
    policy = Policy(model(attention_dropout=0.5))
    assert policy.model.training
    assert torch.equal(policy.score(pack(SAMPLES)), policy.score(pack(SAMPLES)))


def test_clipping_and_schedule() -> None:
    options = Optimization(learning_rate=1e-2, warmup_updates=2, max_grad_norm=1e-3)
    policy = Policy(model(), options)
    assert policy.optimizer.adamw.param_groups[0]["weight_decay"] == 0.01
    assert policy.optimizer.adamw.param_groups[1]["weight_decay"] == 0.0
    assert all(p.ndim < 2 for p in policy.optimizer.adamw.param_groups[1]["params"])
    batches = pack(SAMPLES, advantages_N=advantages(SAMPLES))
    metrics = [policy.update(batches, GRPO().loss) for _ in range(3)]
    assert [m["learning_rate"] for m in metrics] == [5e-3, 1e-2, 1e-2]
    assert metrics[0]["grad_norm"] > 1e-3  # reported before clipping
    # After one step Adam's first moment is (1 - beta1) times the clipped gradient.
    fresh = Policy(model(), options)
    fresh.update(batches, GRPO().loss)
    moments = [fresh.optimizer.adamw.state[p]["exp_avg"].flatten() for p in fresh.model.parameters()]
    assert torch.cat(moments).norm().item() == pytest.approx(0.1 * 1e-3, rel=1e-3)


def nan_loss(_batch: PackedBatch, scores: TokenScores) -> tuple[Tensor, dict[str, Tensor]]:
    return scores.logprobs_N.sum() * float("nan"), {}


def infinite_gradient(_batch: PackedBatch, scores: TokenScores) -> tuple[Tensor, dict[str, Tensor]]:
    return (scores.logprobs_N.sum() * 0).sqrt(), {}


def late_nan(batch: PackedBatch, scores: TokenScores) -> tuple[Tensor, dict[str, Tensor]]:
    return (nan_loss if 0 in batch.sample_N else GRPO().loss)(batch, scores)


@pytest.mark.parametrize(
    ("loss", "message"),
    [(nan_loss, "the loss is nan"), (late_nan, "the loss is nan"), (infinite_gradient, "the gradient norm is")],
)
def test_a_loss_that_is_not_finite_leaves_everything_as_it_was(loss: object, message: str) -> None:
    policy, twin = Policy(model(), FAST), Policy(model(), FAST)
    batches = pack(SAMPLES, advantages_N=advantages(SAMPLES), max_tokens=24)
    for p in (policy, twin):
        p.update(batches, GRPO().loss)
    before = weights(policy)
    with pytest.raises(NumericalError, match=message):
        policy.update(batches, loss)  # type: ignore[arg-type]
    assert same(before, weights(policy))
    assert policy.updates == 1
    for p in (policy, twin):
        p.update(batches, GRPO().loss)
    assert same(weights(policy), weights(twin))


def test_misuse() -> None:
    policy = Policy(model())
    with pytest.raises(ValueError, match="at least one micro-batch"):
        policy.update([], GRPO().loss)
    with pytest.raises(ValueError, match="keeps no reference"):
        policy.score(pack(SAMPLES), reference=True)
    with pytest.raises(UserError, match="learning_rate: expected a number above 0, got 0"):
        Optimization(learning_rate=0)
    with pytest.raises(UserError, match="precision: expected 'float32' or 'bfloat16', got 'fp16'"):
        Optimization(precision="fp16")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="warmup_updates: expected a number of at least 0, got -1"):
        Optimization(warmup_updates=-1)


@pytest.mark.parametrize("kind", MODELS)
def test_load_policy_from_a_folder(kind: str, tmp_path: Path) -> None:
    made = model(kind).to(torch.bfloat16)
    made.save_pretrained(tmp_path)
    policy = load_policy(tmp_path, FAST, temperature=0.9, reference=True)
    assert policy.temperature == 0.9
    assert all(value.dtype == torch.float32 for value in weights(policy).values())
    assert same(weights(policy), {name: value.float() for name, value in made.state_dict().items()})
    assert policy.reference is not None
    assert not any(p.requires_grad for p in policy.reference.parameters())


def test_load_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="model: there is no folder"):
        load_model(tmp_path / "absent")
    with pytest.raises(UserError, match=r"model: there is no folder \./absent/model; give a Hugging Face folder"):
        load_policy("./absent/model")
    with pytest.raises(UserError, match=r"expected a Hugging Face folder with a config\.json"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(UserError, match="model: cannot load a model from"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("not json")
    with pytest.raises(UserError, match="model: cannot load a model from"):
        load_model(tmp_path)
    made = model("llama")
    made.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"garbage")
    with pytest.raises(UserError, match="model: cannot load a model from"):
        load_model(tmp_path)


def test_missing_weights_are_not_made_up(tmp_path: Path) -> None:
    made = model("llama")
    state = {name: value for name, value in made.state_dict().items() if "layers.1.mlp.up_proj" not in name}
    made.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(UserError, match=r"lacks 1 of the model's weights, the first is model\.layers\.1\.mlp\.up_proj"):
        load_model(tmp_path)
