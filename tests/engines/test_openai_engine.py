"""The engine that asks a server: what it sends, what it makes of answers, and that no answer can crash it."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import Sequence
from email.utils import formatdate
from typing import Any

import pytest
from fake_openai import MODEL, FakeServer, Raw, serving

from searchr1.engines import ENGINES
from searchr1.engines import chat_http as http_module
from searchr1.engines.chat_http import ChatServer
from searchr1.engines.chat_reply import Call, Reply
from searchr1.engines.openai import OpenAIEngine, finish, missing_stop
from searchr1.engines.text_tokens import TextTokenizer
from searchr1.errors import EngineError, UserError
from searchr1.protocols.tool_calls import SEARCH_TOOL
from searchr1.tokenization import ByteTokenizer
from searchr1.types import Completion, FinishReason, Sampling

BYTES = ByteTokenizer()
STOPS = ("</search>", "</answer>")
KEPT: list[ChatServer] = []
"""Every server that was asked: the end of an event loop closes the connections of those that are still there."""


def engine(fake: FakeServer, **options: Any) -> OpenAIEngine:
    tokenizer = options.pop("tokenizer", None) or TextTokenizer(chat=options.get("api", "chat") == "chat")
    options = {"url": fake.url, "retries": 2, "backoff": 0.001, "timeout": 5.0} | options
    made = ENGINES["openai"](options.pop("model", MODEL), tokenizer, **options)
    assert isinstance(made, OpenAIEngine)
    KEPT.append(made.server)
    return made


async def say(engine: OpenAIEngine, text: str = "Who?", sampling: Sampling = Sampling(20)) -> Completion:  # noqa: B008
    ids = engine._tokenizer.chat(text) or engine._tokenizer.encode(text)
    with engine.session() as session:
        return await engine.generate(ids, sampling, session=session)


def told(engine: OpenAIEngine, completion: Completion) -> str:
    return engine._tokenizer.decode(completion.token_ids)


async def test_a_chat_request_and_its_reply() -> None:
    with serving() as fake:
        asked = engine(fake)
        done = await say(asked, sampling=Sampling(20, 0.7, 0.9, STOPS, seed=2**63 + 5))
        assert (told(asked, done), done.finish_reason, done.version) == ("Paris<|end|>", FinishReason.EOS, 0)
        assert done.logprobs == (0.0,) * len(done.token_ids)
        assert fake.requests == [
            {"model": MODEL, "messages": [{"role": "user", "content": "Who?"}], "max_tokens": 20, "temperature": 0.7,
             "top_p": 0.9, "seed": 5, "stop": list(STOPS)}
        ]  # fmt: skip
        assert fake.paths == ["/v1/chat/completions"]
        assert asked.counts() == {
            "requests": 1, "retries": 0, "failures": 0, "prompt_tokens": 7, "completion_tokens": 3, "cached_tokens": 5,
            "reasoning_tokens": 0, "reasoning_characters": 0,
        }  # fmt: skip


async def test_a_completion_request_is_one_text_without_ends_of_turns() -> None:
    with serving() as fake:
        asked = engine(fake, api="completions")
        with asked.session() as session:
            context = list(asked._tokenizer.encode("Q: Who?\n"))
            done = await asked.generate(context, Sampling(5, 0.0), session=session)
            await asked.generate([*context, *done.token_ids, *context], Sampling(5, 0.0), session=session)
        assert fake.requests[1] == {
            "model": MODEL, "prompt": "Q: Who?\nParisQ: Who?\n", "max_tokens": 5, "temperature": 0.0, "top_p": 1.0,
            "seed": 0,
        }  # fmt: skip


async def test_a_real_tokenizers_ids_are_sent_as_they_are() -> None:
    with serving() as fake:
        done = await say(engine(fake, api="completions", tokenizer=BYTES))
        assert fake.requests[0]["prompt"] == list(b"Who?")
        assert done.token_ids == (*b"Paris", 256)


async def test_other_names_and_fields_left_out() -> None:
    with serving() as fake:
        omit = ("temperature", "top_p", "seed", "stop")
        asked = engine(fake, max_tokens_field="max_completion_tokens", omit=omit)
        done = await say(asked, sampling=Sampling(20, 0.7, 0.9, ("ri",), 1))
        assert set(fake.requests[0]) == {"model", "messages", "max_completion_tokens"}
        assert (told(asked, done), done.finish_reason) == ("Pari", FinishReason.STOP)
        with pytest.raises(UserError, match=r"engine\.omit: expected some of temperature.* got logit_bias"):
            engine(fake, omit=("logit_bias",))


async def test_only_four_stop_strings_are_sent_and_all_are_heeded() -> None:
    with serving(["a b c d e f"]) as fake:
        asked = engine(fake)
        done = await say(asked, sampling=Sampling(20, stop=("1", "2", "3", "4", "d")))
        assert fake.requests[0]["stop"] == ["1", "2", "3", "4"]
        assert (told(asked, done), done.finish_reason) == ("a b c d", FinishReason.STOP)


async def test_what_follows_the_models_own_words_is_said_by_the_user() -> None:
    """Search-R1's dialogue on a server that only chats."""
    with serving(["<think>a</think><search> Dune ", "<answer> x "]) as fake:
        asked, sampling = engine(fake), Sampling(20, stop=STOPS)
        tokenizer = asked._tokenizer
        with asked.session() as session:
            context = tokenizer.chat("Who?") or []
            context += (await asked.generate(context, sampling, session=session)).token_ids
            context += tokenizer.encode("\n\n<information>Doc 1</information>\n\n")
            await asked.generate(context, sampling, session=session)
            await asked.generate(tokenizer.chat("Another?") or [], sampling, session=session)
        assert fake.requests[1]["messages"] == [
            {"role": "user", "content": "Who?"},
            {"role": "assistant", "content": "<think>a</think><search> Dune </search>"},
            {"role": "user", "content": "\n\n<information>Doc 1</information>\n\n"},
        ]
        assert fake.requests[2]["messages"] == [{"role": "user", "content": "Another?"}]


def call(arguments: str, name: str = "search", content: str | None = None, more: Sequence[str] = ()) -> dict[str, Any]:
    calls = [
        {"id": "x", "type": "function", "function": {"name": name, "arguments": said}} for said in (arguments, *more)
    ]
    return {"finish_reason": "tool_calls", "message": {"content": content, "tool_calls": calls}}


async def _call_and_result(fake: FakeServer, result: str) -> tuple[OpenAIEngine, str]:
    asked, sampling = engine(fake), Sampling(20, stop=("</tool_call>",))
    tokenizer = asked._tokenizer
    head, tail = tokenizer.tool_result([SEARCH_TOOL]) or ([], [])
    with asked.session() as session:
        context = tokenizer.chat("Who?", [SEARCH_TOOL]) or []
        said = await asked.generate(context, sampling, session=session)
        context += [*said.token_ids, *head, *tokenizer.encode(result), *tail]
        await asked.generate(context, sampling, session=session)
    assert said.finish_reason in (FinishReason.STOP, FinishReason.LENGTH)
    return asked, told(asked, said)


async def test_a_tool_call_there_and_back() -> None:
    with serving([call('{"query": "Dune"}', content="Let me see.", more=['{"query": "Emma"}']), "done"]) as fake:
        _, text = await _call_and_result(fake, "Doc 1")
        assert text == 'Let me see.\n<tool_call>{"name": "search", "arguments": {"query": "Dune"}}</tool_call>'
        assert [request["tools"] for request in fake.requests] == [[SEARCH_TOOL]] * 2
        assert "stop" not in fake.requests[0]  # a server that reads calls must see their end
        function = {"name": "search", "arguments": '{"query": "Dune"}'}
        assert fake.requests[1]["messages"] == [
            {"role": "user", "content": "Who?"},
            {"role": "assistant", "content": "Let me see.",
             "tool_calls": [{"id": "call00001", "type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": "call00001", "content": "Doc 1"},
        ]  # fmt: skip


@pytest.mark.parametrize("arguments", ['{"query": ', "[1]", "nonsense"])
async def test_a_broken_call_goes_back_as_text(arguments: str) -> None:
    """Servers parse the arguments of calls that they are sent, and refuse those that are no object."""
    with serving([call(arguments), "done"]) as fake:
        _, text = await _call_and_result(fake, "Not valid.")
        assert text == f'<tool_call>{{"name": "search", "arguments": {arguments}}}</tool_call>'
        assert [(m["role"], m["content"]) for m in fake.requests[1]["messages"]] == [
            ("user", "Who?"), ("assistant", text), ("user", "Not valid.")
        ]  # fmt: skip


async def test_a_call_that_was_cut() -> None:
    cut = call('{"query": "Du') | {"finish_reason": "length"}
    with serving([cut, "done"]) as fake:
        _, text = await _call_and_result(fake, "Not valid.")
        assert text == '<tool_call>{"name": "search", "arguments": {"query": "Du'


async def test_a_call_written_as_text_ends_at_the_first() -> None:
    written = '<tool_call>{"name": "search", "arguments": {"query": "Dune"}}</tool_call>'
    with serving([written + "\n" + written, "done"]) as fake:
        _, text = await _call_and_result(fake, "Doc 1")
        assert text == written
        assert [m["role"] for m in fake.requests[1]["messages"]] == ["user", "assistant", "tool"]


async def test_reasoning_is_counted_and_kept_out_of_the_text() -> None:
    message = {"content": "Paris", "reasoning_content": "hmm hmm"}
    usage = {"prompt_tokens": 1, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 4}}
    body = {"choices": [{"finish_reason": "stop", "message": message}], "usage": usage}
    cut = {"finish_reason": "length", "message": {"content": None, "reasoning": "hm"}}
    with serving([Raw(body=body), cut]) as fake:
        asked = engine(fake)
        assert told(asked, await say(asked)) == "Paris<|end|>"
        done = await say(asked)
        assert (done.token_ids, done.finish_reason) == ((), FinishReason.LENGTH)
        counts = asked.counts()
        assert (counts["reasoning_tokens"], counts["reasoning_characters"], counts["completion_tokens"]) == (4, 9, 12)


def reply(text: str, reason: str = "stop", **more: Any) -> Reply:
    return Reply(text, reason, **more)


@pytest.mark.parametrize(
    ("given", "stops", "expected"),
    [
        (reply("<search> Dune "), STOPS, ("<search> Dune </search>", FinishReason.STOP)),
        (reply("<think>x</think><answer> me "), STOPS, ("<think>x</think><answer> me </answer>", FinishReason.STOP)),
        (reply("<search> a </search> b <answer> c"), STOPS, ("<search> a </search>", FinishReason.STOP)),
        (reply("<answer> <search> x"), STOPS, ("<answer> <search> x</search>", FinishReason.STOP)),
        (reply("Dune"), STOPS, ("Dune", FinishReason.EOS)),
        (reply("Action: Search[Dune"), ("]\n",), ("Action: Search[Dune]\n", FinishReason.STOP)),
        (reply("Action: Search[Dune]"), ("]\n",), ("Action: Search[Dune]", FinishReason.EOS)),
        (reply("so far", "length"), STOPS, ("so far", FinishReason.LENGTH)),
        (reply("a", stopped_by="</answer>", names_stops=True), STOPS, ("a</answer>", FinishReason.STOP)),
        (reply("<search> a", names_stops=True), STOPS, ("<search> a", FinishReason.EOS)),
        (reply("<search> a", stopped_by=151645, names_stops=True), STOPS, ("<search> a", FinishReason.EOS)),
        (reply("x", stopped_by="strange", names_stops=True), STOPS, ("x", FinishReason.EOS)),
        (reply("x", "tool_calls", calls=(Call("f", "{}"),)), (),
         ('x\n<tool_call>{"name": "f", "arguments": {}}</tool_call>', FinishReason.STOP)),
    ],
)  # fmt: skip
def test_how_a_reply_ends(given: Reply, stops: tuple[str, ...], expected: tuple[str, FinishReason]) -> None:
    assert finish(given, stops) == expected


def test_stop_strings_that_close_nothing_cannot_be_put_back() -> None:
    assert missing_stop("a\n", ["\n\n", "<end>"]) is None


@pytest.mark.parametrize("reason", ["content_filter", "abort", ""])
async def test_completions_that_were_withheld(reason: str) -> None:
    withheld = {"finish_reason": reason, "message": {"content": "x"}}
    with serving([withheld]) as fake, pytest.raises(EngineError, match="withheld"):
        await say(engine(fake))


async def test_the_token_that_ended_it_is_kept_where_the_server_names_it() -> None:
    class TwoEnds(ByteTokenizer):
        eos_ids = (256, 255)

    with serving([{"finish_reason": "stop", "text": "hi", "stop_reason": 255}]) as fake:
        done = await say(engine(fake, api="completions", tokenizer=TwoEnds()))
        assert done.token_ids == (*b"hi", 255)


GARBAGE = {
    "html": b"<html>Bad gateway</html>",
    "empty": b"",
    "not utf-8": b'{"choices": [{"text": "\xff"}]}',
    "cut": b'{"choices": [{"mess',
    "a list": b"[]",
    "no choices": b'{"id": "x"}',
    "empty choices": b'{"choices": []}',
    "null content": b'{"choices": [{"finish_reason": "stop", "message": {"content": null}}]}',
    "no message": b'{"choices": [{"finish_reason": "stop"}]}',
    "content of parts": b'{"choices": [{"finish_reason": "stop", "message": {"content": [{"text": "x"}]}}]}',
    "no finish reason": b'{"choices": [{"message": {"content": "x"}}]}',
    "calls without function": b'{"choices": [{"finish_reason": "stop", "message": {"tool_calls": [{}]}}]}',
    "deep": b"[" * 100_000,
    "an error": b'{"error": {"message": "upstream is gone"}}',
    "controls": b"\x1b[2J \xe2\x80\xae gone",
}


@pytest.mark.parametrize("body", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_is_an_engine_error(body: bytes) -> None:
    with serving([Raw(body=body)]) as fake:
        asked = engine(fake)
        with pytest.raises(EngineError, match=r"^http://127\.0\.0\.1:\d+/v1/chat/completions: ") as caught:
            await say(asked)
        assert str(caught.value).isprintable()
        assert (len(fake.requests), asked.counts()["failures"]) == (1, 1)


async def test_answers_that_are_too_large_or_cannot_be_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "LARGEST_ANSWER", 10_000)
    bomb = Raw(body=gzip.compress(b" " * 10**7), headers={"content-encoding": "gzip"})
    with serving([Raw(body=b" " * 10_001), bomb, Raw(body=b"x" * 99, headers={"content-encoding": "gzip"})]) as fake:
        asked = engine(fake)
        for expected in ("more than 10,000 bytes", "more than 10,000 bytes", "cannot be read"):
            with pytest.raises(EngineError, match=expected):
                await say(asked)
        assert len(fake.requests) == 3


@pytest.mark.parametrize("failure", [Raw(429), Raw(500), Raw(503, b"loading"), Raw(hang_up=True)])
async def test_what_may_pass_is_tried_again(failure: Raw) -> None:
    with serving([failure, failure, "Paris"]) as fake:
        asked = engine(fake)
        assert told(asked, await say(asked)) == "Paris<|end|>"
        assert (asked.counts()["requests"], asked.counts()["retries"], asked.counts()["failures"]) == (3, 2, 0)
    with serving([failure]) as fake, pytest.raises(EngineError, match="gave up after 3 attempts"):
        await say(engine(fake))


async def test_nobody_there_and_nobody_answering() -> None:
    with serving() as fake:
        pass
    with pytest.raises(EngineError, match="gave up after 3 attempts: ConnectError"):
        await say(engine(fake))
    expected = r"gave up after 1 attempt: no answer within 0\.05 s"
    with serving([Raw(seconds=0.3)]) as fake, pytest.raises(EngineError, match=expected):
        await say(engine(fake, timeout=0.05, retries=0))


@pytest.mark.parametrize("header", ["0.2", formatdate(usegmt=True), "soon"])
async def test_retry_after_is_honoured(header: str) -> None:
    with serving([Raw(429, headers={"retry-after": header}), "Paris"]) as fake:
        started = asyncio.get_running_loop().time()
        await say(engine(fake))
        assert asyncio.get_running_loop().time() - started >= (0.2 if header == "0.2" else 0.0)


async def test_a_pause_longer_than_the_patience_is_a_failure_at_once() -> None:
    expected = "after 1 attempt: status 429: quota; it asks to wait for 3600 s"
    later = Raw(429, {"error": {"message": "quota"}}, {"retry-after": "3600"})
    with serving([later]) as fake, pytest.raises(EngineError, match=expected):
        await say(engine(fake))


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, "status 401: no; expected a good key in the environment variable SOME_KEY, which is set"),
        (403, "status 403: no; expected a good key"),
        (404, "status 404: no; check the model's name, 'maker/model-7b', and engine.url"),
    ],
)
async def test_what_never_works_ends_the_run(status: int, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-secret")
    with serving([Raw(status, {"error": {"message": "no"}})]) as fake:
        with pytest.raises(UserError, match=expected):
            await say(engine(fake, key_variable="SOME_KEY"))
        assert len(fake.requests) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_context_that_is_too_long_ends_one_trajectory(status: int, caplog: pytest.LogCaptureFixture) -> None:
    """With the server's words, which are logged too, once for a kind: a trajectory keeps no message."""
    answers = [Raw(status, {"error": {"message": f"maximum context length is 900 tokens, not {n}"}}) for n in (1, 23)]
    with serving([*answers]) as fake, caplog.at_level(logging.WARNING):
        asked = engine(fake)
        for n in (1, 23):
            with pytest.raises(EngineError, match=f"status {status}: maximum context length is 900 tokens, not {n}"):
                await say(asked)
    assert len(caplog.records) == 1


async def test_the_key_is_sent_and_never_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret ")
    with serving(["Paris", Raw(401, {"error": {"message": "Incorrect API key provided: sk-secret"}})]) as fake:
        asked = engine(fake)
        await say(asked)
        assert fake.headers[0]["authorization"] == "Bearer sk-secret"
        with pytest.raises(UserError) as caught:
            await say(asked)
        assert "provided: (the key)" in str(caught.value)
        assert "sk-secret" not in str(caught.value) + repr(asked.server) + str(asked.counts())
    monkeypatch.delenv("OPENAI_API_KEY")
    with serving() as fake:
        await say(engine(fake))
        assert "authorization" not in fake.headers[0]
    monkeypatch.setenv("OPENAI_API_KEY", "sk-\nsecret")
    with pytest.raises(UserError, match="OPENAI_API_KEY holds characters that no key has") as caught:
        engine(fake)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://x/v1", "http://", "http://x/v1?key=1", "http://x:y/v1"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(UserError, match=r"engine\.url: expected the base URL .* got"):
        ChatServer(url, MODEL)


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(UserError, match="with a user or a password") as caught:
        ChatServer("http://me:secret@127.0.0.1:8000/v1", MODEL)
    assert "secret" not in str(caught.value)


async def test_the_check_knows_the_models_and_their_context() -> None:
    with serving() as fake:
        assert await engine(fake).check() == 900
        assert fake.paths == ["/v1/models"]
        with pytest.raises(UserError, match=rf"^{fake.url} serves {MODEL}, other, not 'mine'; name a model"):
            await engine(fake, model="mine").check()
        fake.models = Raw(body={"data": [{"id": f"m{n}"} for n in range(11)]})
        with pytest.raises(UserError, match="m6, m7 and 3 more, not"):
            await engine(fake).check()


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        (Raw(404, b"nothing here"), "/v1/models: status 404: nothing here; check the model's name"),
        (Raw(401), "status 401: an empty body; expected a good key"),
        (Raw(503), "gave up after 1 attempt: status 503: an empty body; start the server, or mend engine.url"),
        (Raw(body=b"<html>"), "not a list of models"),
        (Raw(body={"data": []}), "serves no model, not"),
    ],
)
async def test_a_server_that_cannot_be_used(models: Raw, expected: str) -> None:
    with serving() as fake:
        fake.models = models
        with pytest.raises(UserError, match=expected):
            await engine(fake).check()


async def test_no_more_requests_at_once_than_slots() -> None:
    with serving(lambda request: Raw(seconds=0.02, body={"choices": [{"finish_reason": "stop", "text": "x"}]})) as fake:
        asked = engine(fake, concurrency=3, api="completions")
        await asyncio.gather(*(say(asked) for _ in range(12)))
        assert (len(fake.requests), fake.busiest) == (12, 3)


def test_one_engine_in_two_event_loops() -> None:
    """As a command has them: the check in one, the questions in another."""
    with serving() as fake:
        asked = engine(fake)
        asyncio.run(asked.check())
        assert told(asked, asyncio.run(say(asked))) == "Paris<|end|>"


async def test_a_cancelled_request_gives_its_place_back() -> None:
    with serving([Raw(seconds=0.2), "Paris"]) as fake:
        asked = engine(fake, concurrency=1)
        task = asyncio.create_task(say(asked))
        while not fake.requests:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert told(asked, await say(asked)) == "Paris<|end|>"


async def test_what_it_refuses() -> None:
    with serving() as fake:
        asked = engine(fake)
        with asked.session() as session, pytest.raises(EngineError, match="the context is empty"):
            await asked.generate([], Sampling(2), session=session)
        with pytest.raises(EngineError, match="a server's weights cannot be changed"):
            await asked.load([], 1)
        with pytest.raises(EngineError, match="a request that is no Unicode text"):
            await say(asked, "half a pair: \ud800")
        with pytest.raises(UserError, match=r"engine\.api = 'chat' sends messages, not tokens"):
            engine(fake, tokenizer=BYTES)
        assert not json.loads(json.dumps(fake.requests))
