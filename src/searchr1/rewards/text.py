"""Answer normalisation, bit for bit that of Search-R1, which took it from SQuAD.

Only ASCII punctuation is dropped and nothing is folded, unified or stemmed: scores stay comparable with the published
ones, with all their known strictness (``é`` is not ``e``, ``10`` is not ``ten``, a hyphen's removal joins its words).
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable

from searchr1.types import Passage

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """Lower-case, drop ASCII punctuation, blank out articles, collapse white space; in this order.

    >>> normalize("The  U.S. well-known Theatre")
    'us wellknown theatre'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def tokens(text: str) -> list[str]:
    """The words of the normalised text.

    >>> tokens("An apple, a day")
    ['apple', 'day']
    """
    return normalize(text).split()


def holds_answer(passage: Passage, answers: Iterable[str]) -> bool:
    """True when an answer stands in the passage, in whole words after normalisation, in title or text.

    >>> holds_answer(Passage("1", "Dune", "By Frank Herbert."), ["the frank herbert"])
    True
    >>> holds_answer(Passage("1", "Dune", "By Frank Herbert."), ["Frank Herb"])
    False
    """
    words = f" {normalize(f'{passage.title} {passage.text}')} "
    return any(f" {wanted} " in words for answer in answers if (wanted := normalize(answer)))
