import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.retrieval.serving.snippets import best_snippet, match_ranges, query_words


def marked(text: str, query: str) -> list[str]:
    return [text[start:end] for start, end in match_ranges(text, query_words(query))]


@pytest.mark.parametrize(
    ("text", "query", "expected"),
    [
        ("Frank Herbert wrote Dune.", "who WROTE dune?", ["wrote", "Dune"]),
        ("Novels of a novel city and its cities", "novel cities", ["Novels", "novel", "city", "cities"]),
        ("Émile ZOLA, Zolas", "emile zola", ["Émile", "ZOLA", "Zolas"]),
        ("E\u0301mile", "mile", ["mile"]),  # a combining mark ends a word, in text and query alike
        ("これは小説です", "小説", ["小", "説"]),
        ("the end of the of", "the of", ["the", "of", "the", "of"]),  # nothing but common words: then they count
        ("the cat", "the dog", []),
        ("under_score", "score", ["score"]),
        ("🧑‍🚀 in space 😀", "space 😀", ["space"]),
        ("anything", "", []),
        ("\x00\u202eDune\ud800", "\ud800 dune", ["Dune"]),
    ],
)
def test_the_words_of_the_query_are_found_whatever_their_form(text: str, query: str, expected: list[str]) -> None:
    assert marked(text, query) == expected


def test_the_sentence_with_the_most_different_words_is_shown() -> None:
    text = "Dune Dune Dune Dune. It is long.\nHerbert wrote Dune in 1965. It was Herbert."
    found = best_snippet(text, query_words("herbert dune"), 30)
    assert (found.text, found.start) == ("Herbert wrote Dune in 1965.", 33)
    assert found.matches == ((0, 7), (14, 18))


def test_as_many_whole_sentences_as_fit_are_shown() -> None:
    text = "One dune. Two dunes. Three."
    assert best_snippet(text, query_words("dune"), 20).text == "One dune. Two dunes."
    assert best_snippet(text, query_words("dune"), 19).text == "One dune."
    assert best_snippet(text, query_words("dune"), 100).text == text


def test_without_a_match_the_beginning_is_shown() -> None:
    assert best_snippet("First words. Others.", query_words("zebra"), 15).text == "First words."
    assert best_snippet("  ", query_words("zebra")).text == ""
    assert best_snippet("", query_words("zebra")).text == ""


def test_a_long_sentence_is_cut_between_words_and_an_endless_word_anywhere() -> None:
    found = best_snippet("aaa bbb ccc dune eee fff ggg", query_words("dune"), 12)
    assert (found.text, found.start) == ("dune eee fff", 12)
    assert best_snippet("a" * 50 + " dune", query_words("dune"), 20).text == "a" * 10 + " dune"


@given(
    text=st.text(st.sampled_from("ab.?!\n 。é小\ud800😀_"), max_size=300),
    query=st.text(st.sampled_from("ab é小"), max_size=5),
    characters=st.integers(1, 40),
)
def test_a_snippet_is_a_piece_of_the_text(text: str, query: str, characters: int) -> None:
    words = query_words(query)
    found = best_snippet(text, words, characters)
    assert text[found.start : found.start + len(found.text)] == found.text
    assert len(found.text) <= characters
    assert found.text == found.text.strip()
    assert found.matches == match_ranges(found.text, words)
    ends = [0, *(place for match in found.matches for place in match)]
    assert ends == sorted(ends)


@pytest.mark.parametrize(
    "text", ["a. " * 300_000, "dune " * 200_000, "x" * 1_000_000, "\n" * 1_000_000, "dune. " * 100_000]
)
def test_a_hostile_passage_takes_no_more_time_than_another(text: str) -> None:
    started = time.process_time()
    best_snippet(text, query_words("dune a"))
    assert time.process_time() - started < 1.0
