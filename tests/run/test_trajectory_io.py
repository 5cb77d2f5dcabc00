"""A trajectory written to a row and read back is the same trajectory, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.errors import UserError
from searchr1.trajectory_io import row_to_trajectory, token_pieces, trajectory_row
from searchr1.types import (
    Answer,
    Invalid,
    Passage,
    Question,
    Scored,
    Search,
    SearchOutcome,
    Segment,
    Source,
    StopReason,
    Trajectory,
    Turn,
)


class Bytes:
    """Token ``i`` is byte ``i``."""

    eos_ids = (0,)

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, token_ids: Sequence[int]) -> str:
        return bytes(token_ids).decode(errors="replace")

    def chat(self, text: str) -> list[int] | None:
        return None


class Words(Bytes):
    """Token ``i`` is the word ``w<i>``; like some real ones, a space only between words."""

    def decode(self, token_ids: Sequence[int]) -> str:
        return " ".join(f"w{token}" for token in token_ids)


finite = st.floats(allow_nan=False, allow_infinity=False)
ids = st.lists(st.integers(0, 255), max_size=12)
seconds = st.floats(0, 1e6)
passages = st.builds(Passage, st.text(), st.text(), st.text(), finite)
actions = st.one_of(st.builds(Search, st.text()), st.builds(Answer, st.text()), st.builds(Invalid, st.text()))
turns = st.builds(
    Turn,
    actions,
    st.lists(passages, max_size=2).map(tuple),
    st.sampled_from(SearchOutcome),
    st.integers(0, 9),
    st.integers(0, 9),
    st.booleans(),
    seconds,
    seconds,
)
given_segments = st.tuples(st.sampled_from([Source.PROMPT, Source.ENVIRONMENT]), ids).map(
    lambda drawn: Segment(drawn[0], tuple(drawn[1]))
)
policy_segments = st.lists(st.tuples(st.integers(0, 255), finite), max_size=12).map(
    lambda drawn: Segment(Source.POLICY, tuple(i for i, _ in drawn), tuple(p for _, p in drawn))
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)
questions = st.builds(
    Question,
    st.text(),
    st.text(),
    st.lists(st.text(), max_size=3).map(tuple),
    st.text(),
    st.dictionaries(st.text(), json_values, max_size=3),
)
trajectories = st.builds(
    Trajectory,
    questions,
    st.lists(given_segments | policy_segments, max_size=4).map(tuple),
    st.lists(turns, max_size=3).map(tuple),
    st.none() | st.text(),
    st.sampled_from(StopReason),
    st.integers(0, 10**6),
    st.integers(0, 2**63 - 1),
)


@given(trajectories, finite, st.dictionaries(st.text(), finite, max_size=2), st.none() | finite)
def test_round_trip_is_exact(
    trajectory: Trajectory, reward: float, components: dict[str, float], advantage: float | None
) -> None:
    scored = Scored(trajectory, reward, components)
    row = trajectory_row(scored, kind="train", step=3, tokenizer=Bytes(), advantage=advantage, group="3/q")
    back = json.loads(json.dumps(row))
    assert row_to_trajectory(back) == trajectory
    assert (back["reward"], back["components"], back["advantage"]) == (reward, components, advantage)
    assert [s["text"] for s in back["segments"]] == [Bytes().decode(s.token_ids) for s in trajectory.segments]


@given(ids)
def test_pieces_are_one_a_token_and_together_the_text(token_ids: list[int]) -> None:
    for tokenizer in (Bytes(), Words()):
        pieces = token_pieces(token_ids, tokenizer)
        assert len(pieces) == len(token_ids)
        assert "".join(pieces) == tokenizer.decode(token_ids)


def test_a_character_of_several_tokens_shows_at_its_last_one() -> None:
    assert token_pieces(list("aé😀b".encode()), Bytes()) == ["a", "", "é", "", "", "", "😀", "b"]
    assert token_pieces([0xC3], Bytes()) == ["�"]
    assert token_pieces([5, 6, 7], Words()) == ["w5", " w6", " w7"]


def test_the_row_says_what_a_reader_needs() -> None:
    trajectory = Trajectory(
        Question("q1", "Who?", ("Ann",), "one-hop", {"hops": 1}),
        (Segment(Source.PROMPT, (81,)), Segment(Source.POLICY, (72, 105), (-0.5, -0.25))),
        (Turn(Answer("Hi"), policy_tokens=2),),
        "Hi",
        StopReason.ANSWERED,
        4,
        7,
    )
    scored = Scored(trajectory, 0.0, {"exact_match": 0.0})
    row = trajectory_row(scored, kind="eval", step=0, tokenizer=Bytes(), advantage=None, group="q1")
    assert row["question"] == {
        "id": "q1",
        "question": "Who?",
        "answers": ["Ann"],
        "dataset": "one-hop",
        "metadata": {"hops": 1},
    }
    assert row["segments"] == [
        {"source": "prompt", "token_ids": [81], "text": "Q", "pieces": ["Q"]},
        {"source": "policy", "token_ids": [72, 105], "logprobs": [-0.5, -0.25], "text": "Hi", "pieces": ["H", "i"]},
    ]
    assert (row["turns"][0]["action"], row["turns"][0]["text"], row["turns"][0]["search"]) == ("answer", "Hi", "none")
    assert (row["kind"], row["step"], row["stop"], row["group"], row["seed"]) == ("eval", 0, "answered", "q1", 7)

    with pytest.raises(UserError, match="must have the field 'stop'"):
        row_to_trajectory({key: value for key, value in row.items() if key != "stop"})
    with pytest.raises(UserError, match="garbled: 'tired' is not a valid StopReason"):
        row_to_trajectory({**row, "stop": "tired"})
    broken = {**row, "segments": [{"source": "policy", "token_ids": [1, 2], "logprobs": [-0.5]}]}
    with pytest.raises(UserError, match="needs 2 log-probabilities, got 1"):
        row_to_trajectory(broken)


def test_what_turns_earned_stands_in_the_row() -> None:
    played = Trajectory(Question("q", "?", ("a",)), (), (Turn(Answer("a")),), "a", StopReason.ANSWERED, 0, 1)
    rows = [
        trajectory_row(scored, kind="train", step=1, tokenizer=Bytes(), advantage=None, group="g")
        for scored in (Scored(played, 1.0, {}), Scored(played, 1.25, {}, (0.25,)))
    ]
    assert ["turn_rewards" in row for row in rows] == [False, True]
    assert rows[1]["turn_rewards"] == [0.25]
