"""Supervised fine-tuning learns the policy's tokens, and nothing from any other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from small_policies import SAMPLES, STEADY, VOCABULARY, model, one_by_one, sample, trained
from torch import Tensor

from searchr1.training.optimization import Optimization
from searchr1.training.packing import pack
from searchr1.training.policy import Policy
from searchr1.training.supervised import imitate
from searchr1.types import Sample

FAST = Optimization(learning_rate=1e-2, weight_decay=0.0)
BATCH = [sample(n, n) for n in (9, 4, 12, 6)]


class Gradients:
    """The gradients of one update, caught when the optimiser is about to use them."""

    def __init__(self, samples: list[Sample], max_tokens: int = 4096) -> None:
        policy = Policy(model(), replace(FAST, max_grad_norm=1e9))
        self.found: dict[str, Tensor] = {}
        for name, parameter in policy.model.named_parameters():
            parameter.register_post_accumulate_grad_hook(lambda p, name=name: self._keep(name, p))
        self.metrics = imitate(policy, pack(samples, max_tokens=max_tokens))

    def _keep(self, name: str, parameter: Any) -> None:
        self.found[name] = parameter.grad.clone()

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Gradients)
        return all(torch.equal(self.found[name], other.found[name]) for name in self.found)

    __hash__ = object.__hash__


def obvious_loss(policy: Any, samples: list[Sample]) -> Tensor:
    """The mean negative log-probability of the trained tokens, each sample alone through the model's own logits."""
    logprobs, _ = one_by_one(policy, samples)
    return -logprobs.mean()


@STEADY
@given(SAMPLES)
def test_the_loss_is_the_mean_negative_log_probability_of_policy_tokens(samples: list[Sample]) -> None:
    policy = Policy(model(), FAST)
    with torch.no_grad():
        expected = obvious_loss(policy.model, samples).item()
    assert imitate(policy, pack(samples, max_tokens=30))["loss"] == pytest.approx(expected, abs=1e-5)


def test_the_gradients_are_those_of_that_loss() -> None:
    plain = model()
    obvious_loss(plain, BATCH).backward()  # type: ignore[no-untyped-call]
    for max_tokens in (12, 4096):
        found = Gradients(BATCH, max_tokens).found
        assert found.keys() == dict(plain.named_parameters()).keys()
        for name, parameter in plain.named_parameters():
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_a_token_that_is_not_the_policys_has_no_gradient_of_its_own() -> None:
    """One context, several masks: the gradient of every logit row, position by position.

    Where the next token is the policy's, it is (softmax - one-hot) / trained tokens, and elsewhere exactly zero. So
    whatever stands there is seen as context and never learned.
    """
    plain, tokens = model(), tuple(range(1, 9))
    for mask in ((0, 0, 1, 1, 0, 0, 1, 0), (0, 1, 0, 0, 0, 0, 0, 1)):
        chosen = Sample(tokens, tuple(map(bool, mask)), (0.0,) * 8, 1.0, "q")
        logits = plain(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
        logits.retain_grad()
        targets, places = torch.tensor(tokens[1:]), torch.tensor(mask[1:], dtype=torch.bool)
        loss = torch.nn.functional.cross_entropy(logits[:-1][places], targets[places])
        plain.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        assert (logits.grad[:-1][~places] == 0).all()
        assert (logits.grad[:-1][places] != 0).all()
        found = Gradients([chosen]).found
        for name, parameter in plain.named_parameters():
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_what_the_environment_says_after_the_last_policy_token_changes_nothing() -> None:
    known = Sample((1, 2, 3, 4, 5), (False, True, True, False, False), (0.0,) * 5, 1.0, "q")
    changed = replace(known, token_ids=(1, 2, 3, 29, 17))
    assert Gradients([known]) == Gradients([changed])


def test_what_the_environment_says_before_a_policy_token_is_its_context() -> None:
    known = Sample((1, 2, 3, 4, 5), (False, True, False, False, True), (0.0,) * 5, 1.0, "q")
    changed = replace(known, token_ids=(1, 2, 29, 17, 5))
    assert Gradients([known]) != Gradients([changed])


def test_behaviour_log_probabilities_and_rewards_play_no_part() -> None:
    other = [replace(s, logprobs=tuple(-9.0 if m else 0.0 for m in s.mask), reward=-3.0) for s in BATCH]
    assert Gradients(BATCH) == Gradients(other)


@pytest.mark.parametrize("kind", ["qwen2", "gemma2", "granite"])
@pytest.mark.parametrize("max_tokens", [12, 4096])
def test_token_accuracy(kind: str, max_tokens: int) -> None:
    """The share of the trained tokens that greedy decoding would say; some are made to be."""
    plain, samples = model(kind), []
    for number, drawn in enumerate(BATCH):
        ids = list(drawn.token_ids)
        for place in range(1, len(ids)):
            if drawn.mask[place] and (place + number) % 2:
                ids[place] = int(plain(input_ids=torch.tensor([ids[:place]])).logits[0, -1].argmax())
        samples.append(replace(drawn, token_ids=tuple(ids)))
    right = 0
    for drawn in samples:
        said = plain(input_ids=torch.tensor([drawn.token_ids])).logits[0].argmax(-1).tolist()
        right += sum(said[p - 1] == drawn.token_ids[p] for p in range(len(said)) if drawn.mask[p])
    metrics = imitate(Policy(plain, FAST), pack(samples, max_tokens=max_tokens))
    assert 0.2 < right / trained(samples) < 0.95
    assert metrics["token_accuracy"] == pytest.approx(right / trained(samples), abs=1e-6)


def test_updates_teach_the_tokens() -> None:
    policy = Policy(model(), FAST)
    losses = [imitate(policy, pack(BATCH))["loss"] for _ in range(30)]
    assert losses[0] > 2 > 0.5 > losses[-1]
    assert imitate(policy, pack(BATCH))["token_accuracy"] > 0.9
    assert len(policy.model.get_decoder()._forward_hooks) == 0  # type: ignore[operator]


def test_a_sample_of_a_certain_weight_counts_so_much() -> None:
    heavy = [replace(BATCH[0], weight=2.0)]
    light = Gradients(BATCH[:1])
    for name, gradient in Gradients(heavy).found.items():
        torch.testing.assert_close(gradient, 2 * light.found[name], rtol=1e-4, atol=1e-6)
    assert max(BATCH[0].token_ids) < VOCABULARY
