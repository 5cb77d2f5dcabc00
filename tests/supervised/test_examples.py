"""What is learned from: read back exactly, refused where it is of another tokenizer or dialogue, divided."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dialogues import BUDGET, BYTES, INVALID, RIGHT, TAGS, WRONG, Dead, named, play, row_of, score
from hypothesis import given
from hypothesis import strategies as st

from searchr1.config import build_recipe
from searchr1.errors import UserError
from searchr1.protocols.tags import Tags
from searchr1.supervised.examples import Examples, check_lengths, divide, read_examples
from searchr1.supervised.learning import check_same, summary, supervised_recipe
from searchr1.training.samples import to_sample
from searchr1.types import Invalid, Scored, Source

PLAYED = [
    play(RIGHT),
    play(WRONG),  # its passage is cut
    play(INVALID),
    play(["<think>hm</think>"] * 3),  # ends without an answer
    play(["<answer>Herbert</answer>"], agent="direct"),
    play(["<answer>Herbert</answer>"], named("q", text="Dune"), agent="rag"),
    play(["<search>more</search>"], named("q", text="Emma"), agent="rag"),  # which the dialogue does not offer
]
Row = dict[str, Any]


def write(path: Path, rows: list[Row]) -> str:
    lines = [{"format": "searchr1-trajectories", "version": 1}, *rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_every_agents_trajectories_are_read_back(tmp_path: Path) -> None:
    assert any(turn.truncated for turn in PLAYED[1].turns)
    assert isinstance(PLAYED[6].turns[0].action, Invalid)
    path = write(tmp_path / "a.jsonl", [row_of(t) for t in [*PLAYED, play(RIGHT, retriever=Dead())]])
    more = write(tmp_path / "b.jsonl", [row_of(PLAYED[0])])
    expected = [*score(*PLAYED), *score(PLAYED[0])]
    assert read_examples([path, more], BYTES, TAGS, BUDGET) == expected


class Shifted:
    """Another tokenizer: every id is a byte, one further."""

    eos_ids = (257,)

    def encode(self, text: str) -> list[int]:
        return [token + 1 for token in BYTES.encode(text)]

    def decode(self, token_ids: Any) -> str:
        return BYTES.decode([token - 1 for token in token_ids])

    def chat(self, text: str) -> list[int] | None:
        return None


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [row_of(PLAYED[0])])
    with pytest.raises(UserError, match=r"a\.jsonl, line 2 was made with another tokenizer: its tokens read 'Ques"):
        read_examples([path], Shifted(), Tags(Shifted(), "short"), BUDGET)


class Brackets(Tags):
    """Another dialogue with the same prompt."""

    def parse(self, text: str) -> Any:
        return super().parse(text.replace("[search]", "<search>").replace("[/search]", "</search>"))


class Quoted(Tags):
    """Another wrapper around passages."""

    def observe(self, passages: Any, budget: int) -> Any:
        return replace(super().observe(passages, budget), token_ids=tuple(BYTES.encode("found it")))


class Polite(Tags):
    def invalid(self) -> Any:
        return replace(super().invalid(), token_ids=tuple(BYTES.encode("please")))


@pytest.mark.parametrize(
    ("protocol", "number", "message"),
    [(Tags(BYTES, "standard"), 0, r"its prompt is 'Question: Who wrote Dune\?\\n', that of this recipe is 'You answer"),
     (Brackets(BYTES, "short"), 3, r"this one reads '\[search\]a\[/search\]<eos>' as Search\(query='a'\), it was In"),
     (Quoted(BYTES, "short"), 0, r"does not tell the policy '\\n\\n<information>Doc 1"),
     (Polite(BYTES, "short"), 2, r"does not tell the policy '\\nThis is not a valid action")],
)  # fmt: skip
def test_another_dialogue_is_refused(protocol: Any, number: int, message: str, tmp_path: Path) -> None:
    played = play(["[search]a[/search]", *RIGHT]) if number == 3 else PLAYED[number]
    path = write(tmp_path / "a.jsonl", [row_of(played)])
    read_examples([path], BYTES, TAGS, BUDGET)
    with pytest.raises(UserError, match=rf"a\.jsonl, line 2 was made in another dialogue: .*{message}"):
        read_examples([path], BYTES, protocol, BUDGET)


def without(key: str) -> Callable[[Row], None]:
    return lambda row: row.pop(key)


def text_as_ids(row: Row) -> None:
    row["segments"][1]["token_ids"] = list("abc")
    row["segments"][1]["logprobs"] = [0, 0, 0]


def no_text(row: Row) -> None:
    del row["segments"][0]["text"]


@pytest.mark.parametrize("spoil", [without("segments"), without("reward"), without("turns"), text_as_ids, no_text])
def test_rows_that_are_no_trajectories(spoil: Callable[[Row], None], tmp_path: Path) -> None:
    row = row_of(PLAYED[0])
    spoil(row)
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: expected "):
        read_examples([write(tmp_path / "a.jsonl", [row])], BYTES, TAGS, BUDGET)


def test_only_what_the_policy_said_is_to_be_learned() -> None:
    [item] = score(PLAYED[0])
    examples = divide([item], 0.5, seed=0)
    assert examples.train == (to_sample(item, "books/q1"),)
    assert examples.held_out == ()  # one question cannot be divided
    [learned] = examples.train
    said = bytes(token for token, mine in zip(learned.token_ids, learned.mask, strict=True) if mine)
    assert said == b"".join(bytes(s.token_ids) for s in item.trajectory.segments if s.source is Source.POLICY)
    assert said == b"<think>hm</think><search>Dune</search><answer>Herbert</answer>"


def many(questions: int, each: int) -> list[Scored]:
    [item] = score(PLAYED[0])
    return [
        replace(item, trajectory=replace(item.trajectory, question=named(f"q{number}")))
        for number in range(questions)
        for _ in range(each)
    ]


@given(st.integers(2, 30), st.integers(1, 3), st.floats(0, 0.99), st.integers(0, 5))
def test_a_question_is_on_one_side(questions: int, each: int, held_out: float, seed: int) -> None:
    scored = many(questions, each)
    examples = divide(scored, held_out, seed)
    train, apart = ({sample.group for sample in part} for part in (examples.train, examples.held_out))
    assert not train & apart
    assert len(examples.train) + len(examples.held_out) == questions * each
    assert train
    assert bool(apart) == (held_out > 0)
    assert abs(len(apart) - held_out * questions) <= 1
    assert divide(scored, held_out, seed) == examples


def test_nothing_to_learn_from() -> None:
    with pytest.raises(UserError, match="expected at least one trajectory to learn from"):
        divide([], 0.1, 0)


def test_lengths_that_cannot_be_trained() -> None:
    examples = divide(many(3, 1), 0.4, 0)
    longest = len(examples.train[0].token_ids)
    check_lengths(examples, longest, longest)
    with pytest.raises(UserError, match=f"{longest} tokens does not fit the model's context of {longest - 1}"):
        check_lengths(examples, longest, longest - 1)
    with pytest.raises(UserError, match=f"{longest} tokens needs training.micro_batch_tokens"):
        check_lengths(examples, longest - 1, None)


def test_a_run_goes_on_with_its_own_examples_only(tmp_path: Path) -> None:
    one, other = divide(many(9, 1), 0.2, 0), divide(many(9, 1), 0.2, 1)
    check_same(tmp_path, one)  # nothing is known yet
    (tmp_path / "examples.json").write_text(json.dumps(summary(one)))
    check_same(tmp_path, one)
    with pytest.raises(UserError, match="the trajectories changed since the run began"):
        check_same(tmp_path, other)


@pytest.mark.parametrize(("count", "batch", "epochs", "steps"), [(10, 4, 2, 6), (8, 4, 3, 6), (3, 64, 2, 2)])
def test_the_steps_of_a_run(count: int, batch: int, epochs: int, steps: int) -> None:
    sample = to_sample(score(PLAYED[0])[0], "g")
    recipe = build_recipe({"sft": {"batch": batch, "epochs": epochs}, "algorithm": {"name": "grpo", "kl": "k3"}})
    made = supervised_recipe(recipe, Examples((sample,) * count, ()))
    assert made.steps == steps
    assert not made.build_algorithm().needs.reference
    assert (made.rollout.agent, made.evaluation.baselines) == ("search_r1", ("direct", "rag"))


def test_direct_answers_are_evaluated_directly() -> None:
    recipe = build_recipe({"sft": {"answers": True}})
    made = supervised_recipe(recipe, Examples((to_sample(score(PLAYED[0])[0], "g"),), ()))
    assert (made.rollout.agent, made.evaluation.baselines) == ("direct", ("rag",))


@pytest.mark.parametrize("setting", ["sft.epochs=0", "sft.batch=0", "sft.held_out=1", "sft.held_out=-0.1"])
def test_settings_that_are_refused(setting: str) -> None:
    with pytest.raises(UserError, match=setting.split("=")[0]):
        build_recipe({}, [setting])
