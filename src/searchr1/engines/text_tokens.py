"""Token ids for servers that speak text: pieces of text about as long as tokens, and marks for the turns of a chat."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from enum import IntEnum
from threading import Lock
from typing import Any

_PIECE = re.compile(r" ?[a-zA-Z0-9_\u00c0-\u024f]{1,6}| ?\w{1,2}|\s{1,8}(?!\S)|\s| ?[^\w\s]", re.DOTALL)


class Mark(IntEnum):
    """Ids that stand for the structure of a chat; text never becomes one."""

    END = 0
    USER = 1
    ASSISTANT = 2
    TOOL = 3
    """What follows is the result of the call before it."""
    TOOLS = 4
    """What follows is the JSON of the tools that are offered."""


class TextTokenizer:
    """A tokenizer for engines that take text: any text is cut into pieces, which are numbered as they are first seen.

    A piece is at most six letters or digits with the space before them (a long word is several), two characters of
    scripts beyond Latin, a punctuation mark, or white space: counts, and with them token budgets, come out close to
    those of real tokenizers, but are not theirs. Ids mean something to this object alone: nothing can be trained on
    them. One object may be used by many threads. With ``chat=False`` there is no chat template.

    >>> tokenizer = TextTokenizer()
    >>> ids = tokenizer.encode("Who wrote encyclopedias?")
    >>> [tokenizer.decode([i]) for i in ids]
    ['Who', ' wrote', ' encycl', 'opedia', 's', '?']
    >>> tokenizer.decode(tokenizer.chat("Who?") or ())
    '<|user|>Who?<|assistant|>'
    """

    eos_ids: tuple[int, ...] = (Mark.END,)

    def __init__(self, *, chat: bool = True) -> None:
        self.has_chat = chat
        self._pieces = [f"<|{mark.name.lower()}|>" for mark in Mark]
        self._ids: dict[str, int] = {}
        self._lock = Lock()

    def encode(self, text: str) -> list[int]:
        """Any string comes back from `decode` as it was."""
        return [self._id(piece) for piece in _PIECE.findall(text)]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Ids that it never gave out become U+FFFD."""
        pieces = self._pieces
        return "".join(pieces[i] if 0 <= i < len(pieces) else "\ufffd" for i in token_ids)

    def chat(self, text: str, tools: Sequence[Mapping[str, Any]] = ()) -> list[int] | None:
        if not self.has_chat:
            return None
        offered = [Mark.TOOLS, *self.encode(json.dumps(list(tools)))] if tools else []
        return [*offered, Mark.USER, *self.encode(text), Mark.ASSISTANT]

    def tool_result(self, tools: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[int]] | None:
        return ([Mark.TOOL], [Mark.ASSISTANT]) if self.has_chat else None

    def _id(self, piece: str) -> int:
        found = self._ids.get(piece)
        if found is not None:
            return found
        with self._lock:
            if piece not in self._ids:
                self._pieces.append(piece)  # before anybody can get the id
                self._ids[piece] = len(self._pieces) - 1
            return self._ids[piece]
