"""Gold answers, said by a teacher through the ordinary agent."""

from __future__ import annotations

import pytest
from dialogues import BUDGET, BYTES, TAGS, named
from hypothesis import given
from hypothesis import strategies as st

from searchr1.agents.budget import Budget
from searchr1.assemble import model_path
from searchr1.protocols.tags import Tags
from searchr1.supervised.examples import divide
from searchr1.supervised.teacher import gold_answers
from searchr1.tokenization import HFTokenizer
from searchr1.types import Answer, Search, Source, StopReason


class Unstopped(Tags):
    """A dialogue whose turns end by themselves."""

    @property
    def stops(self) -> tuple[str, ...]:
        return ()


def test_tokens_and_mask() -> None:
    [item] = gold_answers([named("q")], TAGS, BYTES, BUDGET)
    prompt, said = item.trajectory.segments
    assert (prompt.source, prompt.token_ids) == (Source.PROMPT, tuple(TAGS.prompt("Who wrote Dune?", search=False)))
    assert (said.source, bytes(said.token_ids)) == (Source.POLICY, b"<answer> Frank Herbert </answer>")
    assert (item.reward, item.trajectory.answer, item.trajectory.stop) == (1.0, "Frank Herbert", StopReason.ANSWERED)
    [sample] = divide([item], 0.0, 0).train
    assert sample.mask == (False,) * len(prompt.token_ids) + (True,) * len(said.token_ids)


def test_a_dialogue_without_a_stop_ends_with_the_end_of_sequence() -> None:
    [item] = gold_answers([named("q")], Unstopped(BYTES, "short"), BYTES, BUDGET)
    assert item.trajectory.segments[1].token_ids == (*b"<answer> Frank Herbert </answer>", 256)


def test_what_a_dialogue_cannot_say_is_left_out() -> None:
    questions = [
        named("long", answers=("x" * 200,)), named("tag", answers=("a</answer>b",)), named("empty", answers=("  ",)),
        named("padded", answers=("  Herbert ",)), named("good"),
    ]  # fmt: skip
    scored = gold_answers(questions, TAGS, BYTES, BUDGET)
    assert [(item.trajectory.question.id, item.trajectory.answer) for item in scored] == [
        ("padded", "Herbert"), ("good", "Frank Herbert")
    ]  # fmt: skip


def test_every_question_gets_its_own_answer_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("searchr1.supervised.teacher._BLOCK", 7)
    questions = [named(str(number), answers=(f"answer {number}",)) for number in range(20)]
    seen: list[tuple[int, int]] = []
    scored = gold_answers(questions, TAGS, BYTES, BUDGET, lambda done, total: seen.append((done, total)))
    assert [item.trajectory.answer for item in scored] == [f"answer {number}" for number in range(20)]
    assert seen == [(7, 20), (14, 20), (20, 20)]


def test_in_a_real_vocabulary_the_turn_ends_with_the_closing_tag() -> None:
    tokenizer = HFTokenizer(model_path("atlas-base"))
    protocol = Tags(tokenizer, "short", chat="never")
    [item] = gold_answers([named("q")], protocol, tokenizer, Budget(turn_tokens=200))
    said = item.trajectory.segments[1].token_ids
    assert said == tuple(tokenizer.encode("<answer> Frank Herbert </answer>"))


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(str.strip).filter(bool))
def test_a_dialogue_reads_what_it_writes(text: str) -> None:
    for action in (Answer(text), Search(text)):
        if "</" not in text:
            assert TAGS.parse(TAGS.write(action)) == action
