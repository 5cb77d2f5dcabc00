import pytest
from reward_dialogues import decode, played, score

from searchr1.rewards.f1_floor import F1Floor


@pytest.mark.parametrize(
    ("answer", "thought", "expected"),
    [
        ("Frank Herbert", "<think>so</think>", 1.0),
        ("Frank", "<think>so</think>", 2 / 3),
        ("Asimov", "<think>so</think>", 0.1),
        ("Frank Herbert", "so", 0.0),
        ("Asimov", "so", 0.0),
        (None, "<think>so</think>", 0.0),
    ],
)
def test_the_three_branches(answer: str | None, thought: str, expected: float) -> None:
    assert score(F1Floor(decode), played(answer, [], thought=thought)) == pytest.approx(expected, abs=1e-12)


def test_the_floor_is_an_option() -> None:
    assert score(F1Floor(decode, floor=0.25), played("Asimov")) == 0.25
    assert score(F1Floor(decode, floor=0.0), played("Asimov")) == 0.0


@pytest.mark.parametrize("floor", [-0.1, 1.5, float("nan")])
def test_wrong_floors(floor: float) -> None:
    with pytest.raises(ValueError, match="floor: expected a number from 0 to 1"):
        F1Floor(decode, floor=floor)
