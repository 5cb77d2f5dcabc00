"""The critic: what it says, what it learns from, and that a checkpoint keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_policies import model, sample, trained
from torch import Tensor
from whole_updates import per_token, step_of

from searchr1.algorithms.base import experience
from searchr1.algorithms.grpo import GRPO
from searchr1.algorithms.ppo import PPO
from searchr1.errors import NumericalError, UserError
from searchr1.training.checkpoint import load_checkpoint, save_checkpoint
from searchr1.training.logprobs import TokenScores
from searchr1.training.optimization import Critic, Optimization
from searchr1.training.packing import PackedBatch, pack
from searchr1.training.policy import Policy

OPTIONS = Optimization(learning_rate=3e-3, warmup_updates=4)
SAMPLES = [sample(n, n) for n in (9, 4, 12, 6)]
GIVEN = {name: values for name, values in per_token(SAMPLES).items() if name != "trainer_N"}
BATCHES = step_of(SAMPLES, GIVEN, max_tokens=24)
BACKBONES = ["separate", "shared"]


def policy_with(backbone: Any, kind: str = "qwen2", seed: int = 0, **options: Any) -> Policy:
    return Policy(model(kind, seed), OPTIONS, critic=Critic(backbone, learning_rate=1e-2, **options))


def train(policy: Policy, updates: int, **options: Any) -> list[dict[str, float]]:
    return [policy.update(BATCHES, PPO(entropy_bonus=0.01).loss, **options) for _ in range(updates)]


def weights(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_a_new_critic_expects_nothing(backbone: str, kind: str) -> None:
    """So the first advantages are what is still to be earned, no more and no less."""
    policy = policy_with(backbone, kind)
    values = policy.values(pack(SAMPLES))
    assert values.tolist() == [0.0] * trained(SAMPLES)
    advantages = PPO(whiten=False).advantages(experience(SAMPLES, values_N=values))
    assert advantages.tolist() == [s.reward for s in SAMPLES for m in s.mask if m]


@pytest.mark.parametrize("max_tokens", [12, 30, 4096])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_value_is_that_of_the_state_before_its_token(backbone: str, max_tokens: int) -> None:
    """From the model's own forward over each sample alone: the token itself, and what follows, is not in it."""
    policy = policy_with(backbone)
    assert policy.critic is not None
    torch.nn.init.normal_(policy.critic.head.weight, generator=torch.Generator().manual_seed(2))
    torch.nn.init.constant_(policy.critic.head.bias, 0.5)
    expected = []
    for s in SAMPLES:
        for place, m in enumerate(s.mask):
            if m:
                backbone_model = policy.critic.backbone or policy.model
                ids = torch.tensor([s.token_ids[:place]])
                with torch.no_grad():
                    states = backbone_model(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states
                    expected.append(policy.critic.head(states[-1][0, -1]).item())
    assert policy.values(pack(SAMPLES, max_tokens=max_tokens)).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_alone_it_leaves_the_policy_as_it_is(backbone: str) -> None:
    policy = policy_with(backbone)
    before, scores = weights(policy.model), policy.score(BATCHES)
    rows = train(policy, 5, critic_alone=True)
    assert same(weights(policy.model), before)
    assert torch.equal(policy.score(BATCHES), scores)
    assert not policy.optimizer.state()["state"]
    assert (policy.updates, policy.critic_updates) == (0, 5)  # its warm-up is not used up
    assert rows[-1]["value_loss"] < rows[0]["value_loss"]
    assert policy.values(BATCHES).abs().max() > 0
    train(policy, 1)
    assert not same(weights(policy.model), before)


def test_a_separate_critic_learns_at_its_own_rate_whatever_the_policy_does() -> None:
    """Its updates are those of a run in which the policy is held still."""
    together, alone = policy_with("separate"), policy_with("separate")
    train(together, 4)
    train(alone, 4, critic_alone=True)
    assert together.critic is not None
    assert alone.critic is not None
    assert same(weights(together.critic), weights(alone.critic))
    without = Policy(model(), OPTIONS)
    for _ in range(4):
        without.update(BATCHES, GRPO(kl_in="reward", entropy_bonus=0.01).loss)
    assert same(weights(together.model), weights(without.model))


def test_its_schedule_and_clipping_are_its_own() -> None:
    policy = policy_with("separate", warmup_updates=2, max_grad_norm=1e-3)
    rows = train(policy, 1)
    assert policy.critic_optimizer is not None
    assert policy.critic_optimizer.adamw.param_groups[0]["lr"] == 5e-3
    assert policy.optimizer.adamw.param_groups[0]["lr"] == rows[0]["learning_rate"] == 3e-3 / 4
    assert rows[0]["critic_grad_norm"] > 1e-3  # reported before clipping
    states = policy.critic_optimizer.adamw.state.values()
    moments = torch.cat([state["exp_avg"].flatten() for state in states])
    assert moments.norm().item() == pytest.approx(0.1 * 1e-3, rel=1e-3)  # (1 - beta1) times the clipped gradient


def infinite_value_gradient(batch: PackedBatch, scores: TokenScores) -> tuple[Tensor, dict[str, Tensor]]:
    loss, metrics = PPO().loss(batch, scores)
    return loss + (scores.values_N.sum() * 0).sqrt(), metrics


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_critic_that_is_not_finite_changes_neither(backbone: str) -> None:
    policy = policy_with(backbone)
    train(policy, 1)
    assert policy.critic is not None
    before = weights(policy.model), weights(policy.critic)
    with pytest.raises(NumericalError, match="gradient norm is"):
        policy.update(BATCHES, infinite_value_gradient)
    assert same(weights(policy.model), before[0])
    assert same(weights(policy.critic), before[1])
    assert policy.updates == 1


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("kind", ["qwen2", "llama"])  # tied and untied heads
def test_a_checkpoint_continues_both_bit_for_bit(kind: str, backbone: str, tmp_path: Path) -> None:
    straight = policy_with(backbone, kind)
    train(straight, 3)
    folder = save_checkpoint(tmp_path, 3, straight, None, {})
    train(straight, 4)
    resumed = policy_with(backbone, kind, seed=9)
    load_checkpoint(folder, resumed)
    assert resumed.updates == 3
    train(resumed, 4)
    assert straight.critic is not None
    assert resumed.critic is not None
    assert same(weights(resumed.model), weights(straight.model))
    assert same(weights(resumed.critic), weights(straight.critic))
    for one, two in (
        (straight.optimizer, resumed.optimizer),
        (straight.critic_optimizer, resumed.critic_optimizer),
    ):
        assert one is not None
        assert two is not None
        states, others = one.state()["state"], two.state()["state"]
        assert states.keys() == others.keys()
        assert states
        for number, state in states.items():
            assert same(state, others[number])


def test_a_checkpoint_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    with_critic, without = policy_with("shared"), Policy(model(), OPTIONS)
    saved = [
        save_checkpoint(tmp_path / name, 1, policy, None, {}) for name, policy in (("a", with_critic), ("b", without))
    ]
    with pytest.raises(UserError, match=r"one of the two has .*critics? and the other has none"):
        load_checkpoint(saved[1], policy_with("shared"))
    with pytest.raises(UserError, match=r"one of the two has .*critics? and the other has none"):
        load_checkpoint(saved[0], Policy(model(), OPTIONS))
    with pytest.raises(UserError, match="holds another model than the run's"):
        load_checkpoint(saved[0], policy_with("separate"))


def test_misuse() -> None:
    with pytest.raises(ValueError, match="this policy has no critic"):
        Policy(model()).values(BATCHES)
    with pytest.raises(UserError, match=r"critic\.backbone: expected 'separate' or 'shared', got 'own'"):
        Critic(backbone="own")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"critic\.learning_rate: expected a number above 0, got 0"):
        Critic(learning_rate=0)
    with pytest.raises(UserError, match=r"critic\.alone_steps: expected a number of at least 0, got -1"):
        Critic(alone_steps=-1)
