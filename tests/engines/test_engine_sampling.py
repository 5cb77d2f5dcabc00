import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from searchr1.engines.sampling import sample, uniforms
from searchr1.types import Sampling

QUARTERS = torch.log(torch.tensor([[0.5, 0.25, 0.125, 0.125]]))
PLAIN = Sampling(1)


@pytest.mark.parametrize(("number", "token"), [(0.0, 0), (0.49, 0), (0.51, 1), (0.76, 2), (0.88, 3), (1 - 2**-53, 3)])
def test_the_number_picks_by_cumulative_probability(number: float, token: int) -> None:
    tokens, logprobs = sample(QUARTERS, [PLAIN], [number])
    assert tokens == [token]
    assert logprobs == pytest.approx([QUARTERS[0, token].item()])


def test_temperature_changes_the_distribution_and_its_logprobs() -> None:
    tokens, logprobs = sample(QUARTERS, [Sampling(1, temperature=0.5)], [0.7])
    squares = [1 / 4, 1 / 16, 1 / 64, 1 / 64]
    assert tokens == [0]
    assert logprobs == pytest.approx([math.log(squares[0] / sum(squares))])


@pytest.mark.parametrize(
    ("top_p", "number", "token", "probability"),
    [(0.5, 0.99, 0, 1.0), (0.51, 0.99, 1, 1 / 3), (0.75, 0.6, 0, 2 / 3), (1.0, 0.99, 3, 0.125)],
)
def test_top_p_keeps_the_fewest_tokens_that_hold_it(
    top_p: float, number: float, token: int, probability: float
) -> None:
    # The second row asks for the rest of the batch's path: it has no limit of its own.
    tokens, logprobs = sample(QUARTERS.repeat(2, 1), [Sampling(1, top_p=top_p), PLAIN], [number, 0.99])
    assert tokens == [token, 3]
    assert logprobs == pytest.approx([math.log(probability), math.log(0.125)], abs=1e-6)


def test_rows_of_all_kinds_share_a_batch() -> None:
    choices = [Sampling(1, temperature=0.0), PLAIN, Sampling(1, temperature=2.0), Sampling(1, top_p=0.3)]
    together = sample(QUARTERS.repeat(4, 1), choices, [0.9] * 4)
    alone = [sample(QUARTERS, [choice], [0.9]) for choice in choices]
    assert together[0] == [tokens[0] for tokens, _ in alone] == [0, 3, 3, 0]
    assert together[1] == pytest.approx([logprobs[0] for _, logprobs in alone])
    assert together[1][0] == 0.0


def test_impossible_tokens_are_never_sampled() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]])
    assert sample(logits.repeat(3, 1), [PLAIN] * 3, [0.0, 0.5, 1 - 2**-53])[0] == [1, 3, 3]


def test_frequencies_are_the_probabilities() -> None:
    count = 20_000
    tokens, _ = sample(QUARTERS.repeat(count, 1), [PLAIN] * count, uniforms(5, count))
    shares = torch.bincount(torch.tensor(tokens), minlength=4) / count
    torch.testing.assert_close(shares, QUARTERS[0].exp(), atol=0.012, rtol=0)


@given(st.integers(-(2**70), 2**70))
def test_numbers_follow_the_seed(seed: int) -> None:
    numbers = uniforms(seed, 4)
    assert numbers == uniforms(seed, 6)[:4]
    assert all(0.0 <= number < 1.0 for number in numbers)
    assert numbers != uniforms(seed + 1, 4)
