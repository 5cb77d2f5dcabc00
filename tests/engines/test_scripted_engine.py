import json
from pathlib import Path

import pytest

from searchr1.engines import ENGINES
from searchr1.engines.scripted import Request, Script, ScriptedEngine
from searchr1.errors import EngineError, UserError
from searchr1.tokenization import ByteTokenizer
from searchr1.types import Completion, FinishReason, Sampling

BYTES = ByteTokenizer()


async def say(engine: ScriptedEngine, contexts: list[str], sampling: Sampling) -> list[str]:
    with engine.session() as session:
        done = [await engine.generate(BYTES.encode(text), sampling, session=session) for text in contexts]
    return [BYTES.decode(completion.token_ids) for completion in done]


async def test_turns_are_popped_in_order_in_every_session() -> None:
    engine = ScriptedEngine(["one", "two"], BYTES)
    for _ in range(2):
        assert await say(engine, ["q", "q"], Sampling(9)) == ["one<eos>", "two<eos>"]
    assert engine.requests[3] == Request(session=1, turn=1, token_ids=(113,), sampling=Sampling(9))
    with pytest.raises(EngineError, match="has 2 turns and turn 3"):
        await say(engine, ["q"] * 3, Sampling(9))


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ({"capital": ["a", "b"], "river": "c"}, ["a<eos>", "c<eos>"]),
        (lambda context, turn: f"{context[-5:]}{turn}", ["ital?0<eos>", "iver?1<eos>"]),
    ],
)
async def test_mappings_and_functions(script: Script, expected: list[str]) -> None:
    assert await say(ScriptedEngine(script, BYTES), ["The capital?", "The river?"], Sampling(9)) == expected


async def test_a_context_without_a_key_is_an_error() -> None:
    with pytest.raises(EngineError, match="no key of the script"):
        await say(ScriptedEngine({"capital": "x"}, BYTES), ["The river?"], Sampling(9))


@pytest.mark.parametrize(
    ("text", "sampling", "expected"),
    [
        ("a</s>b", Sampling(9, stop=("</s>",)), Completion((97, 60, 47, 115, 62), (-2.0,) * 5, FinishReason.STOP, 0)),
        ("a</s>b", Sampling(5, stop=("</s>",)), Completion((97, 60, 47, 115, 62), (-2.0,) * 5, FinishReason.STOP, 0)),
        ("abc", Sampling(2), Completion((97, 98), (-2.0,) * 2, FinishReason.LENGTH, 0)),
        ("abc", Sampling(3), Completion((97, 98, 99), (-2.0,) * 3, FinishReason.LENGTH, 0)),
        ("abc", Sampling(4), Completion((97, 98, 99, 256), (-2.0,) * 4, FinishReason.EOS, 0)),
    ],
)
async def test_how_a_completion_ends(text: str, sampling: Sampling, expected: Completion) -> None:
    engine = ScriptedEngine([text], BYTES, logprob=-2.0)
    with engine.session() as session:
        assert await engine.generate([1], sampling, session=session) == expected


async def test_scripts_are_read_from_files(tmp_path: Path) -> None:
    path = tmp_path / "script.json"
    path.write_text(json.dumps(["hello"]))
    engine = ENGINES["scripted"](str(path), BYTES)
    assert isinstance(engine, ScriptedEngine)
    assert await say(engine, ["q"], Sampling(9)) == ["hello<eos>"]
    for content in ("3", "{"):
        path.write_text(content)
        with pytest.raises(UserError, match="expected a JSON"):
            ENGINES["scripted"](str(path), BYTES)
    with pytest.raises(UserError, match="got the string 'hello'"):
        ScriptedEngine("hello", BYTES)
