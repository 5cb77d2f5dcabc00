"""Trajectories become samples whose mask says who wrote each token."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from searchr1.algorithms.base import experience
from searchr1.training.samples import gather, mini_batches, score_environment, split, to_sample
from searchr1.types import Answer, Invalid, Question, Sample, Scored, Segment, Source, StopReason, Trajectory, Turn

TRAJECTORY = Trajectory(
    Question("q", "?", ("a",)),
    (
        Segment(Source.PROMPT, (1, 2)),
        Segment(Source.POLICY, (3, 4), (-0.5, -0.25)),
        Segment(Source.ENVIRONMENT, (5, 6)),
        Segment(Source.POLICY, (7,), (-1.0,)),
    ),
    (),
    None,
    StopReason.NO_ACTION,
    0,
    0,
)


def test_only_sampled_tokens_are_trained() -> None:
    sample = to_sample(Scored(TRAJECTORY, 0.5, {}), "g")
    assert sample == Sample(
        (1, 2, 3, 4, 5, 6, 7),
        (False, False, True, True, False, False, True),
        (0.0, 0.0, -0.5, -0.25, 0.0, 0.0, -1.0),
        0.5,
        "g",
    )


def test_without_the_mask_the_prompt_alone_is_left_out() -> None:
    sample = to_sample(Scored(TRAJECTORY, 0.5, {}), "g", mask_environment=False)
    assert sample.mask == (False, False, True, True, True, True, True)


def test_what_a_turn_earned_stands_on_the_last_token_that_the_policy_wrote_in_it() -> None:
    sample = to_sample(Scored(TRAJECTORY, 1.5, {}, (0.5, 0.75)), "g")
    assert sample.turn_rewards == ((3, 0.5), (6, 0.75))
    assert experience([sample]).rewards_N.tolist() == [0.0, 0.5, 1.0]  # what no turn earned is the last token's
    assert to_sample(Scored(TRAJECTORY, 1.5, {}, (0.0, 0.75)), "g").turn_rewards == ((6, 0.75),)
    assert to_sample(Scored(TRAJECTORY, 1.5, {}), "g").turn_rewards == ()


def test_turn_rewards_stand_on_the_same_tokens_where_documents_are_trained_too() -> None:
    sample = to_sample(Scored(TRAJECTORY, 1.5, {}, (0.5, 0.75)), "g", mask_environment=False)
    assert experience([sample]).rewards_N.tolist() == [0.0, 0.5, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("stop", StopReason)
def test_a_sample_that_filled_the_context_is_marked(stop: StopReason) -> None:
    cut = stop is StopReason.OUT_OF_TOKENS
    assert to_sample(Scored(replace(TRAJECTORY, stop=stop), 0.0, {}), "g").cut == cut
    whole, half = Turn(Answer("a")), Turn(Invalid("no closing tag"), cut=True)
    still_writing = replace(TRAJECTORY, stop=stop, turns=(whole, half))
    assert to_sample(Scored(still_writing, 0.0, {}), "g").cut == (cut or stop is StopReason.NO_ACTION)
    recovered = replace(TRAJECTORY, stop=stop, turns=(half, whole))
    assert to_sample(Scored(recovered, 0.0, {}), "g").cut == cut


def test_rewards_of_more_turns_than_the_policy_wrote_are_refused() -> None:
    with pytest.raises(ValueError, match="argument 2 is longer"):
        to_sample(Scored(TRAJECTORY, 1.5, {}, (0.5, 0.5, 0.5)), "g")


class Scores:
    """A policy that gives the n-th trained token the log-probability -n."""

    def score(self, batches: list[object]) -> torch.Tensor:
        return -torch.arange(1.0, 6.0)


def test_environment_tokens_start_at_ratio_one_and_sampled_ones_keep_theirs() -> None:
    sample = to_sample(Scored(TRAJECTORY, 0.5, {}), "g", mask_environment=False)
    [scored] = score_environment([sample], Scores(), 100)  # type: ignore[arg-type]
    assert scored.logprobs == (0.0, 0.0, -0.5, -0.25, -3.0, -4.0, -1.0)
    assert replace(scored, logprobs=sample.logprobs) == sample


@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 5))
def test_every_sample_is_in_exactly_one_part(count: int, parts: int, seed: int) -> None:
    made = mini_batches(count, parts, seed)
    assert sorted(index for part in made for index in part) == list(range(count))
    assert len(made) == min(count, parts)
    assert max(map(len, made)) - min(map(len, made)) <= 1


def test_values_follow_their_samples() -> None:
    samples = [Sample((0,) * 4, (False, *mask), (0.0,) * 4, 0.0, "g") for mask in ((1, 1, 0), (0, 0, 1), (1, 1, 1))]
    values = torch.arange(6.0)
    assert [part.tolist() for part in split(samples, values)] == [[0, 1], [2], [3, 4, 5]]
    assert gather(samples, values, [2, 0]).tolist() == [3, 4, 5, 0, 1]


def test_values_that_do_not_fit_are_refused() -> None:
    with pytest.raises(RuntimeError):
        split([Sample((0, 0), (False, True), (0.0, 0.0), 0.0, "g")], torch.zeros(3))
