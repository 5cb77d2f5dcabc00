"""What every engine promises; a new one is covered by its entry in ``ENGINES`` and a subject below."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from fake_openai import MODEL, serving
from transformers import Qwen2Config, Qwen2ForCausalLM

from searchr1.engines import ENGINES
from searchr1.errors import EngineError
from searchr1.ports import Engine
from searchr1.tokenization import ByteTokenizer
from searchr1.types import Completion, FinishReason, Sampling

BYTES = ByteTokenizer()
TEXT = "a<b>c"


def _parrot() -> Any:
    """A model that goes on with ``TEXT`` after a space, then ends: each token's embedding names the next one."""
    order = [ord(" "), *BYTES.encode(TEXT), 256]
    config = Qwen2Config(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.0)
        model.model.norm.weight.fill_(1.0)
        model.model.embed_tokens.weight.normal_()
        for token, following in pairwise(order):
            model.lm_head.weight[following] += 2.0 * model.model.embed_tokens.weight[token]
    return model


def _served_parrot(request: dict[str, Any]) -> dict[str, Any]:
    """A server that says ``TEXT`` a byte at a time, and as servers do keeps the stop string for itself."""
    said = TEXT[: request["max_tokens"]]
    ended = "length" if len(said) == request["max_tokens"] else "stop"
    stops = [stop for stop in request.get("stop", ()) if stop in said]
    if stops:
        return {"text": said.partition(stops[0])[0], "finish_reason": "stop", "stop_reason": stops[0]}
    return {"text": said, "finish_reason": ended, "stop_reason": None}


def _served() -> Iterator[Engine]:
    with serving(_served_parrot) as server:
        yield ENGINES["openai"](MODEL, BYTES, url=server.url, api="completions")


SUBJECTS: dict[str, Callable[[], Iterable[Engine]]] = {
    "local": lambda: [ENGINES["local"](_parrot(), BYTES, slots=4)],
    "openai": _served,
    "scripted": lambda: [ENGINES["scripted"]([TEXT] * 9, BYTES)],
}
TEXT_ONLY = {"openai"}
"""Engines over weights that are not ours."""


def test_every_engine_is_covered() -> None:
    assert set(SUBJECTS) == set(ENGINES)


@pytest.fixture(params=sorted(SUBJECTS))
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    yield from SUBJECTS[request.param]()


async def say(engine: Engine, sampling: Sampling, context: Sequence[int] = (7, 32)) -> Completion:
    with engine.session() as session:
        return await engine.generate(context, sampling, session=session)


async def test_a_completion_ends_with_eos_and_keeps_it(engine: Engine) -> None:
    completion = await say(engine, Sampling(20))
    assert BYTES.decode(completion.token_ids) == TEXT + "<eos>"
    assert completion.finish_reason is FinishReason.EOS
    assert len(completion.logprobs) == len(completion.token_ids)
    assert all(logprob <= 0.0 for logprob in completion.logprobs)


async def test_max_tokens_bounds_it(engine: Engine) -> None:
    completion = await say(engine, Sampling(3))
    assert BYTES.decode(completion.token_ids) == TEXT[:3]
    assert completion.finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize("limit", [4, 20])
async def test_a_stop_string_ends_it_with_the_token_that_completes_it(engine: Engine, limit: int) -> None:
    completion = await say(engine, Sampling(limit, stop=("never", "<b>")))
    assert BYTES.decode(completion.token_ids) == "a<b>"
    assert completion.finish_reason is FinishReason.STOP


async def test_turns_continue_the_whole_context(engine: Engine) -> None:
    with engine.session() as session:
        context = [7, 32]
        for _ in range(3):
            completion = await engine.generate(context, Sampling(20), session=session)
            assert BYTES.decode(completion.token_ids) == TEXT + "<eos>"
            context += [*completion.token_ids, 10, 32]


async def test_many_sessions_at_once(engine: Engine) -> None:
    done = await asyncio.gather(*(say(engine, Sampling(1 + i % 8, seed=i), (i, 32)) for i in range(40)))
    assert [len(completion.token_ids) for completion in done] == [min(1 + i % 8, 6) for i in range(40)]


async def test_the_same_seed_gives_the_same_tokens(engine: Engine) -> None:
    sampling = Sampling(20, temperature=1.5, top_p=0.9, seed=11)
    alone = await say(engine, sampling)
    others = [say(engine, Sampling(20, seed=i), (i, 32)) for i in range(7)]
    *_, again = await asyncio.gather(*others, say(engine, sampling))
    assert again.token_ids == alone.token_ids
    assert again.logprobs == pytest.approx(alone.logprobs, abs=1e-4)


async def test_completions_say_the_version_they_were_sampled_with(
    engine: Engine, request: pytest.FixtureRequest
) -> None:
    assert (await say(engine, Sampling(2))).version == 0
    if request.node.callspec.params["engine"] in TEXT_ONLY:
        with pytest.raises(EngineError, match="weights cannot be changed"):
            await engine.load(_parrot().state_dict().items(), 5)
        return
    await engine.load(_parrot().state_dict().items(), 5)
    assert (await say(engine, Sampling(2))).version == 5


async def test_a_closed_session_is_refused(engine: Engine) -> None:
    with engine.session() as session:
        pass
    with pytest.raises(EngineError, match="open session"):
        await engine.generate([32], Sampling(2), session=session)
