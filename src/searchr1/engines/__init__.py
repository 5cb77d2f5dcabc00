"""Engines: what samples tokens from a policy (``ports.Engine``). One file and one line of ``ENGINES`` each.

>>> sorted(ENGINES)
['local', 'openai', 'scripted']
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from searchr1.ports import Engine, Tokenizer


def _local(model: Any, tokenizer: Tokenizer, **options: Any) -> Engine:
    """``model``: a folder or name to load (options ``dtype`` and ``device``), or a module."""
    from searchr1.engines.local import LocalEngine
    from searchr1.engines.models import load_model

    loading = {key: options.pop(key) for key in ("dtype", "device") if key in options}
    return LocalEngine(load_model(model, **loading), tokenizer, **options)


def _scripted(model: Any, tokenizer: Tokenizer, **options: Any) -> Engine:
    """``model``: a script, or the path of a JSON file that holds one."""
    from searchr1.engines.scripted import ScriptedEngine, read_script

    return ScriptedEngine(read_script(model) if isinstance(model, str) else model, tokenizer, **options)


def _openai(model: Any, tokenizer: Tokenizer, **options: Any) -> Engine:
    """``model``: the name of a served model. Options are those of `ChatServer` and of `OpenAIEngine`."""
    from searchr1.engines.chat_http import ChatServer
    from searchr1.engines.openai import OpenAIEngine

    asking = {key: options.pop(key) for key in ("api", "max_tokens_field", "omit") if key in options}
    return OpenAIEngine(ChatServer(model=model, **options), tokenizer, **asking)


ENGINES: dict[str, Callable[..., Engine]] = {"local": _local, "openai": _openai, "scripted": _scripted}
"""Factories by name, each called with a model, a tokenizer and the engine's own options."""
