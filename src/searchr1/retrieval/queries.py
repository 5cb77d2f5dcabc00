"""What every retriever checks before it searches."""

from __future__ import annotations

from searchr1.errors import UserError

MAX_K = 1000


def check_k(k: int) -> int:
    """``k`` when it is from 1 to 1000; UserError otherwise.

    >>> check_k(3)
    3
    """
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MAX_K:
        raise UserError(f"k: expected a whole number from 1 to {MAX_K}, got {k!r}")
    return k


def clean(text: str) -> str:
    """``text`` as it survives UTF-8: lone surrogates, which a sampled string may hold, become question marks.

    >>> clean("caf\\u00e9 \\ud800")
    'café ?'
    """
    return text.encode("utf-8", "replace").decode("utf-8")
