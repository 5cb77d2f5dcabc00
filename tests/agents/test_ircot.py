"""IRCoT: documents for thoughts, thoughts for documents, exactly."""

from dataclasses import replace

import pytest
from dialogue import ANSWER, BYTES, DUNE, SHORT, WHO, NoSearchEngine, agent, finds, play, prompt, said

from searchr1.agents.ircot import READ, REASON, IRCoT, first_sentence
from searchr1.engines.scripted import ScriptedEngine
from searchr1.errors import UserError
from searchr1.protocols import build_protocol
from searchr1.seeds import derive_seed
from searchr1.trajectory_io import row_to_trajectory, trajectory_row
from searchr1.types import (
    Answer,
    Invalid,
    Passage,
    Scored,
    Search,
    SearchOutcome,
    StopReason,
    Trajectory,
    Turn,
)

HERBERT = Passage("2", "Herbert", "Born in Tacoma.")
THOUGHT = "Dune is by Herbert."
FOUND = '\n\n<information>Doc 1(Title: "Dune") By Frank Herbert.</information>\n\n'
BOTH = (
    '\n\n<information>Doc 1(Title: "Dune") By Frank Herbert.\nDoc 2(Title: "Herbert") Born in Tacoma.</information>\n\n'
)
FIRST = "Answer now. Question: Who wrote Dune?\n" + FOUND
SECOND = f"Answer now. Question: Who wrote Dune?\nThoughts: {THOUGHT}\n" + BOTH
WIDE = replace(SHORT, context_tokens=1000)


async def test_a_thought_is_the_next_query_and_the_answer_ends_the_dialogue() -> None:
    retriever = finds({WHO.text: [DUNE], THOUGHT: [DUNE, HERBERT]})
    played, engine = await play("ircot", [f"{THOUGHT} He was", ANSWER], WIDE, retriever)
    aside = (prompt(FIRST), said(f"{THOUGHT} He was$"))
    assert played == Trajectory(
        WHO,
        (prompt(SECOND), said(ANSWER)),
        (
            Turn(Search(THOUGHT), (DUNE,), SearchOutcome.FOUND, asides=(aside,)),
            Turn(Answer("Frank Herbert"), (DUNE, HERBERT), SearchOutcome.FOUND, len(ANSWER)),
        ),
        "Frank Herbert",
        StopReason.ANSWERED,
        0,
        7,
    )
    assert [query for [query], _ in retriever.calls] == [WHO.text, THOUGHT]
    assert [request.sampling.seed for request in engine.requests] == [derive_seed(7, 0), derive_seed(7, 1)]
    assert {request.session for request in engine.requests} == {0}
    assert played.searches == 2
    assert played.contexts == (played.segments, aside)


async def test_an_answer_instead_of_a_thought_ends_it_at_once() -> None:
    played, _ = await play("ircot", [ANSWER], WIDE)
    assert played.segments == (prompt(FIRST), said(ANSWER))
    assert played.turns == (Turn(Answer("Frank Herbert"), (DUNE,), SearchOutcome.FOUND, len(ANSWER)),)


async def test_the_reader_has_the_last_word_when_the_searches_are_spent() -> None:
    played, engine = await play("ircot", ["One.", "<search> Dune </search>"], WIDE, finds({WHO.text: [DUNE]}))
    assert [turn.action for turn in played.turns] == [
        Search("One."),
        Invalid("a search, where only an answer was asked for: Dune"),
    ]
    assert (played.stop, played.searches, len(engine.requests)) == (StopReason.NO_ACTION, 2, 2)
    silent, _ = await play("ircot", ["", "no tag"], WIDE, finds({WHO.text: [DUNE]}))
    assert silent.turns[0].action == Search(WHO.text)  # nothing was thought: the question again
    assert silent.stop is StopReason.NO_ACTION


async def test_without_searches_it_only_reads() -> None:
    played, _ = await play("ircot", [ANSWER], replace(WIDE, max_searches=0), NoSearchEngine())
    assert played.turns == (Turn(Answer("Frank Herbert"), policy_tokens=len(ANSWER)),)
    assert played.segments[0] == prompt("Answer now. Question: Who wrote Dune?\n")


async def test_without_a_forced_answer_there_is_no_reader() -> None:
    budget = replace(WIDE, forced_answer=False)
    played, engine = await play("ircot", ["One.", ANSWER], budget, finds({WHO.text: [DUNE]}))
    assert (played.stop, played.answer, played.searches) == (StopReason.OUT_OF_TURNS, None, 2)
    assert len(engine.requests) == 1
    early, _ = await play("ircot", [ANSWER], budget)
    assert early.answer == "Frank Herbert"


async def test_its_instructions_stand_in_the_prompt_and_more_documents_have_more_room() -> None:
    dialogue = build_protocol("tags", BYTES)
    budget = replace(SHORT, context_tokens=9000, observation_tokens=60)
    engine = ScriptedEngine(["One.", ANSWER], BYTES)
    long = [Passage("1", "D", "x" * 99), Passage("2", "E", "y" * 99)]
    retriever = finds({WHO.text: long[:1], "One.": long[1:]})
    played = await IRCoT(dialogue, BYTES, budget).run(WHO, engine=engine, retriever=retriever, seed=1)
    texts = [BYTES.decode(request.token_ids) for request in engine.requests]
    assert texts[0].startswith(f"{REASON}\nQuestion: Who wrote Dune?\n")
    assert texts[1].startswith(f"{READ}\nQuestion: Who wrote Dune?\nThoughts: One.\n")
    shown = [len(text[text.index("\n\n<information>") :]) for text in texts]
    assert shown == [60, 119]  # two passages of equal length: 120 less the odd one
    assert [turn.truncated for turn in played.turns] == [True, True]


async def test_failures_and_no_room() -> None:
    down, engine = await play("ircot", [ANSWER], WIDE, NoSearchEngine())
    assert (down.stop, down.turns) == (
        StopReason.SEARCH_UNAVAILABLE,
        (Turn(Search(WHO.text), search=SearchOutcome.FAILED),),
    )
    assert engine.requests == []
    tight = replace(SHORT, context_tokens=len(FIRST) + SHORT.turn_tokens - 1)
    full, engine = await play("ircot", [ANSWER], tight)
    assert (full.stop, engine.requests) == (StopReason.OUT_OF_TOKENS, [])
    assert (await play("ircot", ["One."], WIDE))[0].stop is StopReason.ENGINE_ERROR


async def test_a_row_keeps_what_was_said_beside_the_dialogue() -> None:
    played, _ = await play("ircot", ["One.", ANSWER], WIDE)
    row = trajectory_row(Scored(played, 1.0, {}), kind="eval", step=0, tokenizer=BYTES, advantage=None, group="g")
    assert row_to_trajectory(row) == played
    assert [segment["source"] for segment in row["turns"][0]["asides"][0]] == ["prompt", "policy"]
    assert "asides" not in row["turns"][1]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("One. Two.", "One."),
        ("<think> He lives in\n3.5 rooms! Yes</think>", "He lives in 3.5 rooms!"),
        ("no end", "no end"),
        ("<think></think>", ""),
        ("J. R. R. Tolkien wrote it. He", "J. R. R. Tolkien wrote it."),
        ("Dr. Watson met Mr. Holmes in the U.S. capital. Then", "Dr. Watson met Mr. Holmes in the U.S. capital."),
        ("It has 3. Yes", "It has 3."),
    ],
)
def test_first_sentences(text: str, sentence: str) -> None:
    assert first_sentence(text) == sentence


def test_a_budget_that_cannot_hold_an_observation_is_refused() -> None:
    with pytest.raises(UserError, match="observation_tokens"):
        agent("ircot", replace(SHORT, observation_tokens=3))
