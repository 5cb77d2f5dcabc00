"""Exact match, cover match and F1 beside a second implementation, written from the definition and in another way.

The definition (SQuAD's, which Search-R1 scores with): lower-case; drop the 32 ASCII punctuation characters; drop the
words a, an and the; one blank between words. Words are runs of characters that are letters, digits or the underscore in
the sense of Unicode; that matters only for where an article begins and ends.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.rewards.cover_match import cover_match
from searchr1.rewards.exact_match import exact_match
from searchr1.rewards.f1 import f1
from searchr1.rewards.text import normalize

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
PUNCTUATION = set(map(chr, [*range(33, 48), *range(58, 65), *range(91, 97), *range(123, 127)]))
ARTICLES = ("the", "an", "a")


def plain(text: str) -> str:
    """Character by character, without a regular expression."""
    kept = [character for character in text.lower() if character not in PUNCTUATION]
    out: list[str] = []
    at = 0
    while at < len(kept):
        word = next((w for w in ARTICLES if "".join(kept[at : at + len(w)]) == w and alone(kept, at, len(w))), "")
        out.append(" " if word else kept[at])
        at += len(word) or 1
    words: list[str] = []
    fresh = True
    for character in out:
        if character.isspace():
            fresh = True
        elif fresh:
            words.append(character)
            fresh = False
        else:
            words[-1] += character
    return " ".join(words)


def alone(characters: Sequence[str], at: int, length: int) -> bool:
    """Whether no letter, digit or underscore touches these characters."""
    around = [*characters[max(0, at - 1) : at], *characters[at + length : at + length + 1]]
    return not any(character.isalnum() or character == "_" for character in around)


def overlap(said: str, gold: str) -> float:
    """F1 by crossing out: every said word takes one equal gold word with it."""
    left, right = plain(said).split(), plain(gold).split()
    if not left or not right:
        return 1.0 if left == right else 0.0
    rest, same = list(right), 0
    for word in left:
        if word in rest:
            rest.remove(word)
            same += 1
    return 2 * same / (len(left) + len(right))


def check(said: str, golds: Sequence[str]) -> None:
    assert normalize(said) == plain(said)
    assert exact_match(said, golds) == float(any(plain(said) == plain(gold) for gold in golds))
    assert cover_match(said, golds) == float(any(plain(said).find(plain(gold)) >= 0 for gold in golds))
    assert f1(said, golds) == pytest.approx(max(overlap(said, gold) for gold in golds), abs=1e-12)


WORDS = st.lists(st.sampled_from(["a", "An", "THE", "then", "cat", "A.", "the-end", "'s", "Ünder", "42", "_a", "—a"]))
TEXT = st.one_of(WORDS.map(" ".join), st.text(max_size=12))


@given(TEXT, st.lists(TEXT, min_size=1, max_size=3))
def test_any_text(said: str, golds: list[str]) -> None:
    check(said, golds)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the real questions beside the project")
@pytest.mark.parametrize("name", ["nq", "triviaqa", "popqa", "hotpotqa", "2wikimultihopqa", "musique", "bamboogle"])
def test_answers_of_real_questions(name: str) -> None:
    """Every accepted answer, and that of the next question, as a prediction."""
    with gzip.open(DATA / f"{name}.dev.jsonl.gz", "rt", encoding="utf-8") as lines:
        answers = [json.loads(line)["answers"] for line in lines]
    for mine, other in itertools.pairwise(answers):
        for said in (*mine[:4], other[0], f"The answer is {mine[0]}."):
            check(said, mine)
