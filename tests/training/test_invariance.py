"""What loss, metrics and gradient of a step must not depend on, for every algorithm; in double precision."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_policies import SAMPLES, VOCABULARY, trained
from torch import Tensor
from transformers import PreTrainedModel
from whole_updates import OPTIONS, algorithm, critic_of, loss_and_gradient, per_token, step_of, tiny_double

from searchr1.algorithms import ALGORITHMS
from searchr1.algorithms.base import experience
from searchr1.training.attention import separate_samples
from searchr1.training.packing import PackedBatch, pack
from searchr1.types import Sample

STEADY = settings(deadline=None, derandomize=True, max_examples=20)
NAMES = st.sampled_from(sorted(ALGORITHMS))
POLICY, SEPARATING = tiny_double(), tiny_double()
CRITICS = {id(model): critic_of(model) for model in (POLICY, SEPARATING)}
Result = tuple[float, dict[str, float], Tensor]


def test_no_algorithm_is_left_out() -> None:
    assert set(OPTIONS) == set(ALGORITHMS)
    assert separate_samples(SEPARATING)  # the other of the two ways in which packed samples are kept apart


def result(batches: list[PackedBatch], name: str, policy: PreTrainedModel = POLICY) -> Result:
    chosen = algorithm(name)
    if chosen.correction == "off":
        batches = [replace(batch, trainer_N=torch.zeros(0)) for batch in batches]
    return loss_and_gradient(policy, batches, chosen, CRITICS[id(policy)] if chosen.needs.values else None)


def added(parts: list[Result]) -> Result:
    """What several ranks have together."""
    metrics = {name: (max if name.endswith("_max") else sum)(part[1][name] for part in parts) for name in parts[0][1]}
    return sum(part[0] for part in parts), metrics, torch.stack([part[2] for part in parts]).sum(0)


def same(a: Result, b: Result) -> None:
    assert a[0] == pytest.approx(b[0], rel=1e-9, abs=1e-11)
    assert a[1] == pytest.approx(b[1], rel=1e-5, abs=1e-6)  # metrics are float32
    torch.testing.assert_close(a[2], b[2], rtol=1e-8, atol=1e-10)


@STEADY
@given(NAMES, SAMPLES, st.integers(0, 64), st.integers(13, 80), st.booleans())
def test_rows_padding_and_micro_batches(
    name: str, samples: list[Sample], row_length: int, max_tokens: int, separating: bool
) -> None:
    given = per_token(samples)
    one_row_each = result(step_of(samples, given), name)
    policy = SEPARATING if separating else POLICY
    same(one_row_each, result(step_of(samples, given, row_length=row_length, max_tokens=max_tokens), name, policy))


@STEADY
@given(NAMES, SAMPLES, st.randoms(use_true_random=False))
def test_order_of_samples(name: str, samples: list[Sample], rng: random.Random) -> None:
    given = per_token(samples)
    order = rng.sample(range(len(samples)), len(samples))
    same(
        result(step_of(samples, given, max_tokens=40), name),
        result(step_of(samples, given, order, max_tokens=40), name),
    )


@STEADY
@given(NAMES, SAMPLES, st.integers(1, 4), st.randoms(use_true_random=False))
def test_number_of_ranks(name: str, samples: list[Sample], ranks: int, rng: random.Random) -> None:
    """Each rank packs its own samples and is told what all hold; losses, metrics and gradients are added up."""
    given = per_token(samples)
    owner = [rng.randrange(ranks) for _ in samples]
    whole = {"total_tokens": trained(samples), "total_samples": len(samples)}
    parts = []
    for rank in range(ranks):
        own = [i for i in range(len(samples)) if owner[i] == rank]
        if own:
            parts.append(result(step_of(samples, given, own, max_tokens=30, **whole), name))
    same(result(step_of(samples, given), name), added(parts))


@STEADY
@given(NAMES, SAMPLES, st.integers(1, 4))
def test_samples_with_nothing_to_train_count_for_nothing(name: str, samples: list[Sample], count: int) -> None:
    given = per_token(samples)
    silent = [Sample((1, 2, 3), (False,) * 3, (0.0,) * 3, 0.0, "q") for _ in range(count)]
    same(result(step_of(samples, given), name), result(pack([*samples, *silent], **given), name))


# The environment's tokens.


def dialogue(ids: tuple[int, ...], junk: float = 0.0, reward: float = 1.0, group: str = "q") -> Sample:
    """Prompt 1, actions (2, 3), (4, 5) and (6), and between them observations of ``ids``, divided in two."""
    half = len(ids) // 2
    parts = [((1,), False), ((2, 3), True), (ids[:half], False), ((4, 5), True), (ids[half:], False), ((6,), True)]
    tokens = tuple(token for part, _ in parts for token in part)
    mask = tuple(trained for part, trained in parts for _ in part)
    logprobs = tuple(-1.5 - 0.25 * i if m else junk for i, m in enumerate(mask))
    return Sample(tokens, mask, logprobs, reward, group)


def learned(samples: list[Sample], name: str, policy: PreTrainedModel = POLICY) -> Result:
    """Advantages and all from the samples themselves, as in a step of training."""
    chosen = algorithm(name)
    numbers = {key: value for key, value in per_token(samples).items() if key in ("reference_N", "values_N")}
    given = experience(samples, **numbers, trainer_N=per_token(samples)["trainer_N"])
    numbers |= {"advantages_N": chosen.advantages(given), "trainer_N": given.trainer_N}
    if chosen.needs.values:
        numbers["returns_N"] = chosen.returns(given)
    return result(pack(samples, **numbers), name, policy)


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("junk", [-7.25, 123.0, float("nan"), float("inf")])
def test_what_stands_at_the_environments_tokens_is_never_read(name: str, junk: float) -> None:
    """Not a log-probability of them enters an advantage, a ratio, a KL or a mean: the results are equal bit by bit."""
    clean, dirty = (
        [dialogue((20, 21, 22, 23), number, reward) for reward in (1.0, 0.0, 0.5)] for number in (0.0, junk)
    )
    one, two = learned(clean, name), learned(dirty, name)
    assert one[:2] == two[:2]
    assert torch.equal(one[2], two[2])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_no_hidden_state_that_predicts_the_environments_tokens_has_a_gradient(name: str) -> None:
    """Where the next token is not the policy's, the head's input is not in the loss: nor is any logit."""
    samples = [dialogue((20, 21, 22, 23), reward=reward) for reward in (1.0, 0.0)]
    states: list[Tensor] = []

    def keep(_module: Any, _inputs: Any, answer: Any) -> None:
        answer.last_hidden_state.retain_grad()
        states.append(answer.last_hidden_state)

    hook = POLICY.get_decoder().register_forward_hook(keep)
    try:
        learned(samples, name)
    finally:
        hook.remove()
    [state] = states
    assert state.grad is not None
    mask = samples[0].mask
    for row in state.grad:
        reached = row.abs().sum(-1) > 0
        assert reached.tolist() == list(mask[1:])


@pytest.mark.parametrize("name", ALGORITHMS)
@settings(STEADY, max_examples=5)
@given(st.lists(st.integers(0, VOCABULARY - 1), min_size=6, max_size=6))
def test_observations_are_context_and_nothing_else(name: str, ids: list[int]) -> None:
    """To a policy that looks at one token only, all but the last token of an observation are the same.

    The embeddings of what it never looks at get no gradient, so the whole gradient is the same, too.
    """
    blind = BLIND
    first = (20, 21, 22, 23, 24, 25)
    second = (ids[0], ids[1], 22, ids[3], ids[4], 25)
    results = [
        learned([dialogue(observed, reward=reward) for reward in (1.0, 0.0, 0.5)], name, blind)
        for observed in (first, second)
    ]
    assert results[0][:2] == results[1][:2]
    assert torch.equal(results[0][2], results[1][2])
    seen = learned([dialogue((20, 21, 29, 23, 24, 25), reward=reward) for reward in (1.0, 0.0, 0.5)], name, blind)
    assert seen[0] != results[0][0]  # the token that the policy did look at


BLIND = tiny_double(layers=0)
CRITICS[id(BLIND)] = critic_of(BLIND)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_same_dialogues_give_the_same_gradient(name: str) -> None:
    """So that what changes above changes because of what was changed."""
    samples = [dialogue((20, 21), reward=reward) for reward in (1.0, 0.0)]
    one, two = learned(samples, name), learned(samples, name)
    assert one[:2] == two[:2]
    assert torch.equal(one[2], two[2])
    assert one[2].abs().max() > 1e-3
