"""Normalisation, against cases worked out by hand from the definition: lower, punctuation, articles, white space."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.rewards.text import holds_answer, normalize, tokens
from searchr1.types import Passage

GOLDEN = [
    ("", ""),
    ("Paris", "paris"),
    ("  Paris\t\n France ", "paris france"),
    ("U.S.", "us"),
    ("U. S.", "u s"),
    ("well-known", "wellknown"),
    ("rock 'n' roll", "rock n roll"),
    ("$1,000.50", "100050"),
    ("AT&T", "att"),
    ("snake_case", "snakecase"),
    ("The Beatles", "beatles"),
    ("A Tale of the An", "tale of"),
    ("theatre anthem banana", "theatre anthem banana"),
    ("the the the", ""),
    ("Vitamin A", "vitamin"),
    ("the-end", "theend"),  # punctuation goes first, so the article is no longer a word
    ("a.", ""),
    ("A.I.", "ai"),
    ("l'a", "la"),
    ("the2", "the2"),
    ("“Quoted”", "“quoted”"),  # unicode punctuation stays
    ("1914–1918", "1914–1918"),  # en dash
    ("1914-1918", "19141918"),
    ("l’a", "l’"),  # the typographic apostrophe is no word character, so the article after it goes
    ("a–b", "–b"),
    ("Café", "café"),
    ("Cafe\u0301", "cafe\u0301"),  # not composed
    ("İstanbul", "i̇stanbul"),
    ("STRASSE straße", "strasse straße"),  # lower-cased, not case-folded
    ("non\u00a0breaking", "non breaking"),
    ("zero\u200bwidth", "zero\u200bwidth"),
    ("---", ""),
]


@pytest.mark.parametrize(("text", "expected"), GOLDEN)
def test_golden(text: str, expected: str) -> None:
    assert normalize(text) == expected


def test_all_ascii_punctuation_goes_without_a_gap() -> None:
    assert normalize("x".join(string.punctuation)) == "x" * (len(string.punctuation) - 1)


def test_tokens_are_the_words() -> None:
    assert tokens("The cat, a dog and an owl!") == ["cat", "dog", "and", "owl"]
    assert tokens("the") == []


@given(st.text(alphabet="aAnNtThHeE -.,'éİ–“\n\u00a0\u200b"))
def test_result_is_clean(text: str) -> None:
    result = normalize(text)
    assert result == " ".join(result.split())
    assert not set(result) & set(string.punctuation)


@given(st.text(alphabet="aAnNtThHeE -.,'é "))
def test_white_space_around_and_punctuation_inside_never_matter(text: str) -> None:
    assert normalize(f"  {text}!\n") == normalize(text)
    assert normalize(text.replace("-", "")) == normalize(text)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["tacoma"], True),
        (["The Author, born in TACOMA!"], True),
        (["taco"], False),
        (["coma"], False),
        (["nobody", "Frank Herbert"], True),
        (["herbert author"], True),  # across title and text, with the article gone
        (["the"], False),  # nothing is left of it
        ([], False),
    ],
)
def test_an_answer_is_held_in_whole_words(answers: list[str], expected: bool) -> None:
    assert holds_answer(Passage("1", "Frank Herbert", "An author born in Tacoma."), answers) is expected
