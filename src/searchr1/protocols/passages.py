"""Passages as the policy sees them, and how they are cut to a budget: shared by the dialogue formats."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from searchr1.ports import Tokenizer
from searchr1.types import Observation, Passage


def fit(
    tokenizer: Tokenizer,
    passages: Sequence[Passage],
    wrapper: tuple[Sequence[int], Sequence[int]],
    budget: int,
    whole: Callable[[str], Sequence[int]] | None = None,
) -> Observation:
    """The passages as ``Doc i(Title: "...") text`` between the two parts of ``wrapper``, at most ``budget`` tokens.

    When they do not fit, the longest passages are cut, at token boundaries and each to the same length; the wrapper is
    always whole. ``whole`` gives the ids of wrapper and text where they are more than those of the parts in a row.
    Raises ``ValueError`` when the budget cannot hold even the empty wrapper.

    >>> from searchr1.tokenization import ByteTokenizer
    >>> passages = [Passage("1", "A", "long"), Passage("2", "B", "b")]
    >>> bytes(fit(ByteTokenizer(), passages, (b"[", b"]"), 42).token_ids)
    b'[Doc 1(Title: "A") lo\\nDoc 2(Title: "B") b]'
    """
    head, tail = wrapper
    room = budget - len(head) - len(tail)
    if room < 0:
        raise ValueError(f"an observation needs at least {budget - room} tokens for its wrapper, got {budget}")
    docs = [f'Doc {i}(Title: "{p.title}") {p.text}' for i, p in enumerate(passages, 1)]
    text = "\n".join(docs)
    ids = whole(text) if whole else (*head, *tokenizer.encode(text), *tail)
    if len(ids) <= budget:
        return Observation(tuple(ids))
    pieces = [tokenizer.encode("\n" * (i > 0) + doc) for i, doc in enumerate(docs)]
    limit = _share([len(piece) for piece in pieces], room)
    body = [token for piece in pieces for token in piece[:limit]]
    return Observation((*head, *body, *tail), truncated=any(len(piece) > limit for piece in pieces))


def _share(lengths: Sequence[int], room: int) -> int:
    """The largest common limit under which pieces of these lengths fit into ``room``; the longest where all fit.

    >>> _share([10, 2, 10], 12)
    5
    """
    for served, length in enumerate(sorted(lengths)):
        share = room // (len(lengths) - served)
        if length > share:
            return share
        room -= length
    return max(lengths, default=0)
