"""Whether long work that is taken up again is still the same work: its settings, key by key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from searchr1.errors import UserError


def refuse_changes(folder: Path, saved: Mapping[str, Any], config: Mapping[str, Any], free: frozenset[str]) -> None:
    """Raise ``UserError`` naming what of ``config`` is not as ``saved``, but for keys that are ``free``."""
    old, new = dict(_leaves(saved)), dict(_leaves(json.loads(json.dumps(config))))
    changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    bound = [key for key in changed if not any(key == name or key.startswith(f"{name}.") for name in free)]
    if bound:
        listed = ", ".join(f"{key} ({old.get(key, 'unset')} -> {new.get(key, 'unset')})" for key in bound)
        raise UserError(
            f"{folder}: expected the settings it was started with, changed: {listed}; restore or use another --out"
        )


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """``{"a": {"b": 1}}`` -> ``("a.b", "1")``; JSON text, so that 1 and true differ."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, json.dumps(value, ensure_ascii=False)
