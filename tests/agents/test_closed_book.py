"""Direct, chain of thought and R1: one turn without a search engine, told apart by their instructions."""

import pytest
from dialogue import ANSWER, BYTES, NO_SEARCH_PROMPT, SHORT, WHO, NoSearchEngine, play, prompt, said

from searchr1.agents import build_agent
from searchr1.agents.cot import INSTRUCTION as STEPS
from searchr1.agents.direct import INSTRUCTION as AT_ONCE
from searchr1.engines.scripted import ScriptedEngine
from searchr1.protocols import build_protocol
from searchr1.types import Answer, StopReason, Turn


@pytest.mark.parametrize("name", ["direct", "cot", "r1"])
async def test_one_turn_and_no_search(name: str) -> None:
    played, engine = await play(name, [ANSWER], SHORT, NoSearchEngine())
    assert played.segments == (prompt(NO_SEARCH_PROMPT), said(ANSWER))
    assert played.turns == (Turn(Answer("Frank Herbert"), policy_tokens=len(ANSWER)),)
    assert (played.stop, len(engine.requests)) == (StopReason.ANSWERED, 1)


@pytest.mark.parametrize(("name", "instruction"), [("direct", AT_ONCE), ("cot", STEPS), ("r1", "")])
async def test_instructions_replace_that_of_the_wording(name: str, instruction: str) -> None:
    dialogue = build_protocol("tags", BYTES)
    engine = ScriptedEngine([ANSWER], BYTES)
    await build_agent(name, dialogue, BYTES, SHORT).run(WHO, engine=engine, retriever=NoSearchEngine(), seed=0)
    expected = f"{instruction}\nQuestion: Who wrote Dune?\n" if instruction else None
    text = BYTES.decode(engine.requests[0].token_ids)
    assert text == (expected or BYTES.decode(dialogue.prompt(WHO.text, search=False)))
    assert "<search>" not in text
