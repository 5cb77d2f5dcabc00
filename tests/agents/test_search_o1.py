"""Search-o1: what was found is read beside the dialogue, and only the extract goes into it."""

from dataclasses import replace

from dialogue import ANSWER, BYTES, DUNE, PROMPT, SEARCH, SHORT, WHO, NoSearchEngine, finds, play, prompt, said, told

from searchr1.agents.search_o1 import NOTHING, READ, SearchO1
from searchr1.engines.scripted import ScriptedEngine
from searchr1.engines.text_tokens import TextTokenizer
from searchr1.protocols import build_protocol
from searchr1.seeds import derive_seed
from searchr1.types import Answer, Search, SearchOutcome, StopReason, Trajectory, Turn

WIDE = replace(SHORT, context_tokens=1000)
FOUND = '\n\n<information>Doc 1(Title: "Dune") By Frank Herbert.</information>\n\n'
ASKED = "Answer now. Question: Who wrote Dune?\nReasoning: one step Dune\nSearch query: Dune\n" + FOUND
EXTRACT = "<answer> Herbert wrote it </answer>"
SHOWN = '\n\n<information>Doc 1(Title: "Dune") Herbert wrote it</information>\n\n'


async def test_only_the_extract_goes_into_the_dialogue() -> None:
    played, engine = await play("search_o1", [SEARCH, EXTRACT, ANSWER], WIDE)
    aside = (prompt(ASKED), said(EXTRACT))
    assert played == Trajectory(
        WHO,
        (prompt(PROMPT), said(SEARCH), told(SHOWN), said(ANSWER)),
        (
            Turn(Search("Dune"), (DUNE,), SearchOutcome.FOUND, len(SEARCH), len(SHOWN), asides=(aside,)),
            Turn(Answer("Frank Herbert"), policy_tokens=len(ANSWER)),
        ),
        "Frank Herbert",
        StopReason.ANSWERED,
        0,
        7,
    )
    seeds = [request.sampling.seed for request in engine.requests]
    assert seeds == [derive_seed(7, 0), derive_seed(7, 0, "reading"), derive_seed(7, 1)]


async def test_an_extract_without_tags_is_taken_as_it_is_and_nothing_is_said_to_be_nothing() -> None:
    played, _ = await play("search_o1", [SEARCH, "<think> by Herbert", ANSWER], replace(WIDE, turn_tokens=60))
    assert '(Title: "Dune") by Herbert</info' in BYTES.decode(played.segments[2].token_ids)
    silent, _ = await play("search_o1", [SEARCH, "<think></think>", ANSWER], WIDE)
    assert f'(Title: "Dune") {NOTHING}</info' in BYTES.decode(silent.segments[2].token_ids)


async def test_an_empty_result_is_not_read() -> None:
    played, engine = await play("search_o1", [SEARCH, ANSWER], WIDE, finds({}))
    assert len(engine.requests) == 2
    assert played.turns[0] == Turn(
        Search("Dune"), (), SearchOutcome.EMPTY, len(SEARCH), len("\n\n<information></information>\n\n")
    )


async def test_reading_keeps_to_the_context() -> None:
    """The whole reasoning where it fits, else its last turn alone, else there is no room."""
    scripts = [SEARCH, EXTRACT, SEARCH, EXTRACT, ANSWER]
    played, _ = await play("search_o1", scripts, WIDE)
    second = BYTES.decode(played.turns[1].asides[0][0].token_ids)
    assert "Reasoning: one step Dune one step Dune\n" in second
    need = len(second) + SHORT.turn_tokens
    tight, _ = await play("search_o1", scripts, replace(WIDE, context_tokens=need - 1))
    assert "Reasoning: one step Dune\n" in BYTES.decode(tight.turns[1].asides[0][0].token_ids)
    full, engine = await play("search_o1", scripts, replace(WIDE, context_tokens=len(ASKED) + SHORT.turn_tokens - 1))
    assert full.stop is StopReason.OUT_OF_TOKENS
    assert (full.turns[0].passages, full.turns[0].asides, len(engine.requests)) == ((DUNE,), (), 1)


async def test_failures_are_not_the_policys() -> None:
    assert (await play("search_o1", [SEARCH, EXTRACT], WIDE, NoSearchEngine()))[0].stop is StopReason.SEARCH_UNAVAILABLE
    assert (await play("search_o1", [SEARCH], WIDE))[0].stop is StopReason.ENGINE_ERROR


async def test_the_instruction_to_read() -> None:
    engine = ScriptedEngine([SEARCH, EXTRACT, ANSWER], BYTES)
    agent = SearchO1(build_protocol("tags", BYTES), BYTES, replace(SHORT, context_tokens=9000, observation_tokens=200))
    await agent.run(WHO, engine=engine, retriever=finds(), seed=0)
    assert BYTES.decode(engine.requests[1].token_ids).startswith(f"{READ}\nQuestion: Who wrote Dune?\nReasoning:")


async def test_the_end_of_an_earlier_turn_is_no_part_of_the_reasoning() -> None:
    tokenizer = TextTokenizer()
    engine = ScriptedEngine(["hm", SEARCH, EXTRACT, ANSWER], tokenizer)
    agent = SearchO1(build_protocol("tags", tokenizer, prompt_template="short"), tokenizer, WIDE)
    await agent.run(WHO, engine=engine, retriever=finds(), seed=0)
    assert tokenizer.decode(engine.requests[1].token_ids).count("<|end|>") == 1  # in the dialogue it stays
    assert "Reasoning: hm one step Dune\n" in tokenizer.decode(engine.requests[2].token_ids)
