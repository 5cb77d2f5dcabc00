import pytest
from hypothesis import given
from hypothesis import strategies as st
from reward_dialogues import HERBERT, score

from searchr1.rewards.length import LengthPenalty
from searchr1.types import Segment, Source, StopReason, Trajectory


def long(policy: int, others: int = 0) -> Trajectory:
    half = policy // 2
    segments = (
        Segment(Source.PROMPT, (1,) * others),
        Segment(Source.POLICY, (2,) * half, (0.0,) * half),
        Segment(Source.ENVIRONMENT, (3,) * others),
        Segment(Source.POLICY, (2,) * (policy - half), (0.0,) * (policy - half)),
    )
    return Trajectory(HERBERT, segments, (), None, StopReason.NO_ACTION, 0, 0)


@pytest.mark.parametrize(
    ("tokens", "expected"), [(0, 0.0), (60, 0.0), (61, -0.025), (80, -0.5), (99, -0.975), (100, -1.0), (500, -1.0)]
)
def test_the_three_parts_of_the_equation(tokens: int, expected: float) -> None:
    assert score(LengthPenalty(max_tokens=100, buffer=40), long(tokens)) == pytest.approx(expected)


def test_what_others_wrote_does_not_count() -> None:
    reward = LengthPenalty(max_tokens=100, buffer=40)
    assert score(reward, long(60, others=1000)) == 0.0
    assert score(reward, long(80, others=1000)) == -0.5


@given(st.integers(0, 300), st.integers(1, 100), st.integers(0, 100))
def test_bounds_and_order(tokens: int, buffer: int, free: int) -> None:
    reward = LengthPenalty(max_tokens=free + buffer, buffer=buffer)
    assert -1 <= score(reward, long(tokens + 1)) <= score(reward, long(tokens)) <= 0


@pytest.mark.parametrize(("most", "buffer"), [(10, 0), (10, 11), (0, 0)])
def test_wrong_options(most: int, buffer: int) -> None:
    with pytest.raises(ValueError, match=f"expected 0 < buffer <= max_tokens, got {buffer} and {most}"):
        LengthPenalty(most, buffer)
