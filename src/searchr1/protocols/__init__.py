"""Dialogue formats: how model and environment talk. One object serves prompt, rollout, reward, data and display."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from searchr1.errors import UserError, nearest
from searchr1.ports import Dialogue, Tokenizer

PROTOCOLS: dict[str, str] = {
    "tags": "searchr1.protocols.tags:Tags",
    "tool_calls": "searchr1.protocols.tool_calls:ToolCalls",
    "react_text": "searchr1.protocols.react_text:ReactText",
}


def build_protocol(name: str, tokenizer: Tokenizer, **options: Any) -> Dialogue:
    """The dialogue format called ``name``. Raises ``UserError`` for an unknown name."""
    if name not in PROTOCOLS:
        raise UserError(f"unknown protocol {name!r}{nearest(name, PROTOCOLS)}")
    module, _, cls = PROTOCOLS[name].partition(":")
    dialogue: Dialogue = getattr(import_module(module), cls)(tokenizer, **options)
    return dialogue
