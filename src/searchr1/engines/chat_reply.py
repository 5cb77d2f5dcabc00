"""What OpenAI-compatible servers answer, read without trust: whatever is not as it should be is a ``ValueError``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import msgspec

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool; ``arguments`` is JSON as the model wrote it, which may be broken."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one reply as the server counted them; 0 for what it does not say."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    """Reasoning is among them."""
    cached_tokens: int = 0
    """Of the prompt, those that were not computed anew."""
    reasoning_tokens: int = 0
    reasoning_characters: int = 0
    """Of reasoning that the server keeps apart from the text (counted here)."""

    def totals(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Reply:
    """One choice. ``reasoning`` is what the server keeps apart from ``text``."""

    text: str
    finish_reason: str
    stopped_by: str | int | None = None
    """The stop string or token that ended it, where the server names it."""
    names_stops: bool = False
    """Whether the server says what stopped it: then nothing named means that the model ended by itself."""
    calls: tuple[Call, ...] = ()
    reasoning: str = ""
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class Served:
    """A model of a server, and its context in tokens where the server says."""

    name: str
    context_tokens: int | None = None


class _Function(msgspec.Struct):
    name: str
    arguments: str | dict[str, Any] | None = None


class _ToolCall(msgspec.Struct):
    function: _Function


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    finish_reason: str | None = None
    message: _Message | None = None
    text: str | None = None
    stop_reason: str | int | msgspec.UnsetType | None = msgspec.UNSET  # vLLM
    matched_stop: str | int | msgspec.UnsetType | None = msgspec.UNSET  # SGLang


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Body(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


class _Model(msgspec.Struct):
    id: str
    max_model_len: int | None = None  # vLLM, SGLang


class _Models(msgspec.Struct):
    data: list[_Model]


_body_decoder = msgspec.json.Decoder(_Body)
_models_decoder = msgspec.json.Decoder(_Models)


def read_reply(body: bytes) -> Reply:
    """The first choice of a completion or chat completion.

    >>> read_reply(b'{"choices": [{"text": "Paris", "finish_reason": "stop"}]}').text
    'Paris'
    """
    decoded = _decoded(_body_decoder, body, "a completion")
    if not decoded.choices:
        raise ValueError("an answer without choices")
    choice = decoded.choices[0]
    if choice.finish_reason is None:
        raise ValueError("a completion without finish_reason")
    message = choice.message or _Message(content=choice.text)
    calls = tuple(_call(call.function) for call in message.tool_calls or ())
    reasoning = message.reasoning_content or message.reasoning or ""
    text = message.content if message.content is not None else message.refusal
    if text is None and not calls and not reasoning:
        raise ValueError("a completion without content")
    named = [stop for stop in (choice.stop_reason, choice.matched_stop) if not isinstance(stop, msgspec.UnsetType)]
    return Reply(
        text or "",
        choice.finish_reason,
        next((stop for stop in named if stop is not None), None),
        bool(named),
        calls,
        reasoning,
        _usage(decoded.usage or _Usage(), reasoning),
    )


def read_models(body: bytes) -> list[Served]:
    """The models that a server lists.

    >>> read_models(b'{"data": [{"id": "m", "max_model_len": 1024}]}')
    [Served(name='m', context_tokens=1024)]
    """
    models = _decoded(_models_decoder, body, "a list of models").data
    return [Served(model.id, model.max_model_len) for model in models]


def read_error(body: bytes) -> str:
    """What a server says went wrong: the message in its JSON, or the body itself.

    >>> read_error(b'{"error": {"message": "too long", "code": 400}}')
    'too long'
    """
    try:
        found = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        found = None
    for key in ("error", "message", "detail"):  # one in the other, or each alone
        if isinstance(found, dict) and found.get(key):
            found = found[key]
    return str(found) if found else bytes(body[:2000]).decode("utf-8", "replace").strip() or "an empty body"


def _decoded(decoder: msgspec.json.Decoder[_T], body: bytes, what: str) -> _T:
    try:
        return decoder.decode(body)
    except (ValueError, RecursionError) as error:  # msgspec's errors, and text that is not UTF-8
        raise ValueError(f"an answer that is not {what} ({error}): {read_error(body)}") from error


def _call(function: _Function) -> Call:
    arguments = function.arguments
    return Call(function.name, arguments if isinstance(arguments, str) else json.dumps(arguments or {}))


def _usage(usage: _Usage, reasoning: str) -> Usage:
    prompt = usage.prompt_tokens_details or _PromptDetails()
    completion = usage.completion_tokens_details or _CompletionDetails()
    return Usage(
        usage.prompt_tokens or 0,
        usage.completion_tokens or 0,
        prompt.cached_tokens or 0,
        completion.reasoning_tokens or 0,
        len(reasoning),
    )
