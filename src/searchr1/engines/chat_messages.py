"""Between the token ids of `TextTokenizer` and the messages of a chat server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from searchr1.engines.chat_reply import Call
from searchr1.engines.text_tokens import Mark, TextTokenizer
from searchr1.protocols.tool_calls import CLOSE, OPEN

_CALL = re.compile(rf"{OPEN}(.*?){CLOSE}", re.DOTALL)
_MARKS = frozenset(Mark)
_ROLES = {Mark.USER: "user", Mark.ASSISTANT: "assistant", Mark.TOOL: "tool"}


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a chat server is sent: messages, and the tools that are offered."""

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()


def read_conversation(
    token_ids: Sequence[int], own: Sequence[tuple[int, int]], tokenizer: TextTokenizer
) -> Conversation:
    """The conversation in a context; ``own`` are the (start, end) of what the model itself said in it.

    What follows the model's words, and all before the first mark, is said by the user; where it follows a tool call as
    the call's result, it is a ``tool`` message. A mark for the assistant's turn with nothing after it only opens it.

    >>> tokenizer = TextTokenizer()
    >>> ids = [*(tokenizer.chat("Who?") or ()), *tokenizer.encode("I"), Mark.END, *tokenizer.encode("Not you.")]
    >>> [(m["role"], m["content"]) for m in read_conversation(ids, [(3, 5)], tokenizer).messages]
    [('user', 'Who?'), ('assistant', 'I'), ('user', 'Not you.')]
    """
    messages: list[dict[str, Any]] = []
    tools: tuple[dict[str, Any], ...] = ()
    for mark, ids in _parts(token_ids, own):
        text = tokenizer.decode(ids)
        if mark is Mark.TOOLS:
            tools = tuple(json.loads(text))
        elif text.strip():
            _add(messages, _ROLES[mark], text, calls=bool(tools))
    return Conversation(tuple(messages), tools)


def write_call(call: Call, *, whole: bool = True) -> str:
    """A call as text, arguments as the model wrote them; not ``whole``: it was cut, and so is not closed.

    >>> write_call(Call("search", '{"query": "Dune"}'))
    '<tool_call>{"name": "search", "arguments": {"query": "Dune"}}</tool_call>'
    """
    begun = f'{OPEN}{{"name": {json.dumps(call.name)}, "arguments": {call.arguments}'
    return f"{begun}}}{CLOSE}" if whole else begun


def _parts(token_ids: Sequence[int], own: Sequence[tuple[int, int]]) -> Iterator[tuple[Mark, list[int]]]:
    """Runs of ids with the mark that they stand under; ends of turns are left out."""
    starts, ends = {start for start, _ in own}, {end for _, end in own}
    mark, ids = Mark.USER, list[int]()
    for position, token in enumerate(token_ids):
        opened = Mark(token) if token in _MARKS and token != Mark.END else None
        if opened is None and position in starts:
            opened = Mark.ASSISTANT
        elif opened is None and position in ends:
            opened = Mark.USER
        if opened is not None:
            yield mark, ids
            mark, ids = opened, []
        if token not in _MARKS:
            ids.append(token)
    yield mark, ids


def _add(messages: list[dict[str, Any]], role: str, text: str, *, calls: bool) -> None:
    """One more message, or a longer last one where the same speaker goes on."""
    last = messages[-1] if messages else {}
    if role == "tool":
        called = last.get("tool_calls")
        if called:
            messages.append({"role": "tool", "tool_call_id": called[0]["id"], "content": text})
            return
        role = "user"  # there was no call that it could answer: servers refuse a result of nothing
    if role == "assistant" and calls and (message := _calling(text, len(messages))) is not None:
        messages.append(message)
    elif last.get("role") == role and "tool_calls" not in last:
        last["content"] += f"\n{text}"
    else:
        messages.append({"role": role, "content": text})


def _calling(text: str, number: int) -> dict[str, Any] | None:
    """A message with the call in ``text`` in the native form; None without one that is in order."""
    found = _CALL.search(text)
    if found is None:
        return None
    try:
        called = json.loads(found[1])
        name, arguments = called["name"], called["arguments"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return None
    function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    # nine letters and digits: the only form that every server takes
    call = {"id": f"call{number:05}", "type": "function", "function": function}
    return {"role": "assistant", "content": text[: found.start()].strip() or None, "tool_calls": [call]}
