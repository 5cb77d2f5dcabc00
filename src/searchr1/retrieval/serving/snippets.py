"""The part of a passage that a reader should see first, and where the words of the query stand in it.

Made for eyes alone: what is found never depends on it. Words are compared without case, accents and the commonest
English endings, so that "novels" is seen in "Novel"; Chinese, Japanese and Korean characters are words of their own.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

from searchr1.retrieval.serving.wire import Snippet

_CJK = "\u2e80-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_CJK}]|(?:(?![{_CJK}])[^\W_])+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\s*\n\s*|(?<=[。！？])")
_ENDINGS = ("ing", "ies", "es", "ed", "s", "e", "y")
_SHORTEST_STEM = 3
_COMMON_WORDS = """
a an and are as at be been but by did do does for from had has have how if in into is it its not of on or such that the
their then there these they this to was were what when where which who whom whose why will with
"""
_COMMON = frozenset(_COMMON_WORDS.split())
_LOOKED_AT = 20_000
"""Characters of a passage that are searched for the best piece: whole books are passages too."""


def query_words(query: str) -> frozenset[str]:
    """The words to look for, in their compared form; common ones count only where there are no others.

    >>> sorted(query_words("Who wrote the novels?"))
    ['novel', 'wrot']
    """
    words = [word for _, _, word in _words(query)]
    telling = frozenset(_stem(word) for word in words if word not in _COMMON)
    return telling or frozenset(map(_stem, words))


def match_ranges(text: str, words: frozenset[str]) -> tuple[tuple[int, int], ...]:
    """The (start, end) of every word of ``text`` that is one of ``words`` (see `query_words`).

    >>> match_ranges("A Novel, éd. Zola", query_words("novels by emile zola"))
    ((2, 7), (13, 17))
    """
    return tuple((start, end) for start, end, word in _words(text) if _stem(word) in words)


def best_snippet(text: str, words: frozenset[str], characters: int = 300) -> Snippet:
    """The run of whole sentences, at most ``characters`` long, that holds the most different words of the query.

    Among equals it is the one with the most words, then the first. A sentence that is longer is cut between words.

    >>> found = best_snippet("It rains. Frank Herbert wrote Dune. He lived.", query_words("who wrote dune"), 30)
    >>> found.text, [found.text[start:end] for start, end in found.matches], found.start
    ('Frank Herbert wrote Dune.', ['wrote', 'Dune'], 10)
    """
    pieces = list(_pieces(text[:_LOOKED_AT], characters))
    if not pieces:
        return Snippet("", (), 0)
    start, end = _best_run(text, pieces, words, characters)
    piece = text[start:end]
    return Snippet(piece, match_ranges(piece, words), start)


def _best_run(text: str, pieces: Sequence[tuple[int, int]], words: frozenset[str], characters: int) -> tuple[int, int]:
    """Start and end of the best run of pieces: two pointers over them, so time grows with the text and no faster."""
    matches = [
        [stem for _, _, word in _words(text[start:end]) if (stem := _stem(word)) in words] for start, end in pieces
    ]
    within: Counter[str] = Counter()
    best, chosen = (-1, -1), (0, 0)
    next_piece = 0
    for first, (start, _) in enumerate(pieces):
        while next_piece < len(pieces) and pieces[next_piece][1] - start <= characters:
            within.update(matches[next_piece])
            next_piece += 1
        worth = (len(within), within.total())
        if worth > best and (matches[first] or first == 0):
            best, chosen = worth, (first, next_piece - 1)
        within.subtract(matches[first])
        within = +within if matches[first] else within  # drops the words that are gone
    return pieces[chosen[0]][0], pieces[chosen[1]][1]


def _pieces(text: str, characters: int) -> Iterator[tuple[int, int]]:
    """Start and end, without white space around, of every sentence; of its parts, where it is too long."""
    gaps = [(gap.start(), gap.end()) for gap in _SENTENCE_END.finditer(text)]
    start = 0
    for end, following in [*gaps, (len(text), len(text))]:
        end = start + len(text[start:end].rstrip())
        while (start := end - len(text[start:end].lstrip())) < end:
            cut = end
            if end - start > characters:
                space = text.rfind(" ", start, start + characters + 1)
                cut = space if space > 0 else start + characters
            yield start, start + len(text[start:cut].rstrip())
            start = cut
        start = following


def _words(text: str) -> Iterator[tuple[int, int, str]]:
    for found in _WORD.finditer(text):
        yield found.start(), found.end(), _fold(found[0])


def _fold(word: str) -> str:
    if word.isascii():
        return word.lower()
    decomposed = unicodedata.normalize("NFKD", word.casefold())
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST_STEM:
            return word[: -len(ending)]
    return word
