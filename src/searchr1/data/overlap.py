"""Questions of one set that stand, equal or nearly so, in another: what a test set has in common with a training set.

Near means a Jaccard similarity of at least ``threshold`` between the sets of words and of neighbouring word pairs,
after the metric's normalisation. Prefix filtering finds every such pair and none else (Chaudhuri, Ganti and Kaushik
2006; Bayardo, Ma and Srikant 2007): two sets that are similar enough share one of their rarest members.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from searchr1.rewards.text import normalize
from searchr1.types import Question

Progress = Callable[[int, int | None], None]
_PROGRESS_EVERY = 1000


@dataclass(frozen=True, slots=True)
class Pair:
    """A question of A and one of B. ``exact``: equal after normalisation. ``same_answer``: they share an answer."""

    a: Question
    b: Question
    similarity: float
    exact: bool
    same_answer: bool


def overlap(
    a: Sequence[Question], b: Sequence[Question], threshold: float = 0.8, progress: Progress | None = None
) -> list[Pair]:
    """Every pair that is equal or near, in the order of B, the most similar first.

    >>> a = [Question("1", "Who wrote Dune?", ("Herbert",)), Question("2", "Who wrote Emma?", ("Austen",))]
    >>> [(p.a.id, p.b.id, p.exact) for p in overlap(a, [Question("9", "who wrote the dune", ("F. Herbert",))])]
    [('1', '9', True)]

    Raises ValueError for a threshold outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold: expected a number above 0 and at most 1, got {threshold}")
    texts_a, texts_b = [normalize(question.text) for question in a], [normalize(question.text) for question in b]
    sets_a, sets_b = _as_ranks([*map(shingles, texts_a)], [*map(shingles, texts_b)])
    index: defaultdict[int, list[int]] = defaultdict(list)
    for place, ranks in enumerate(sets_a):
        for rank in _prefix(ranks, threshold):
            index[rank].append(place)
    answers_a = [_answers(question) for question in a]
    pairs: list[Pair] = []
    for done, (question, text, ranks) in enumerate(zip(b, texts_b, sets_b, strict=True), start=1):
        mine, found = set(ranks), list[tuple[float, int]]()
        for place in {place for rank in _prefix(ranks, threshold) for place in index.get(rank, ())}:
            both = len(mine.intersection(sets_a[place]))
            similarity = both / (len(mine) + len(sets_a[place]) - both)
            if similarity >= threshold:
                found.append((-similarity, place))
        for negative, place in sorted(found):
            exact = text == texts_a[place]
            pairs.append(Pair(a[place], question, -negative, exact, bool(answers_a[place] & _answers(question))))
        if progress is not None and done % _PROGRESS_EVERY == 0:
            progress(done, len(b))
    return pairs


def shingles(text: str) -> set[str]:
    """The words of a normalised text and its pairs of neighbours.

    >>> sorted(shingles("who wrote dune"))
    ['dune', 'who', 'who wrote', 'wrote', 'wrote dune']
    """
    words = text.split()
    return {*words, *(f"{first} {second}" for first, second in pairwise(words))}


def _as_ranks(*collections: Sequence[set[str]]) -> list[list[list[int]]]:
    """Every set as the sorted ranks of its members, the rarest of all collections first."""
    counts = Counter(member for sets in collections for members in sets for member in members)
    rank = {member: place for place, member in enumerate(sorted(counts, key=lambda member: (counts[member], member)))}
    return [[sorted(rank[member] for member in members) for members in sets] for sets in collections]


def _prefix(ranks: Sequence[int], threshold: float) -> Sequence[int]:
    """The rarest members, one of which is in every set that is similar enough."""
    least_shared = math.ceil(threshold * len(ranks) - 1e-9)
    return ranks[: len(ranks) - least_shared + 1] if ranks else ranks


def _answers(question: Question) -> set[str]:
    return {normalize(answer) for answer in question.answers} - {""}
