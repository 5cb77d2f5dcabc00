"""What a corpus holds of questions: as `holds_answer` says of every passage, only in one pass."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from searchr1.data.coverage import cover
from searchr1.rewards.text import holds_answer, normalize
from searchr1.types import Passage, Question

CORPUS = [
    Passage("1", "Dune (novel)", "A novel by Frank Herbert, the author."),
    Passage("2", "Emma", "Jane Austen wrote it in 1815"),
]


def verdicts(*answers: str, titles: list[str] | None = None) -> tuple[bool | None, bool | None, bool]:
    metadata = {} if titles is None else {"supporting_titles": titles}
    (found,) = cover([Question("q", "?", answers, "d", metadata)], CORPUS)
    return found.answer, found.titles, found.covered


def test_answers() -> None:
    assert verdicts("Frank Herbert") == (True, None, True)
    assert verdicts("the frank-herbert") == (False, None, False)  # normalisation joins what a hyphen joined
    assert verdicts("Herbert the author") == (True, None, True)
    assert verdicts("Frank Herb") == (False, None, False)
    assert verdicts("dune novel a") == (True, None, True)  # the article between title and text goes, too
    assert verdicts("1815 Dune") == (False, None, False)  # never across passages
    assert verdicts("Brontë", "Jane Austen wrote it in 1815") == (True, None, True)


def test_answers_that_cannot_be_looked_for() -> None:
    assert verdicts("yes") == verdicts("No", "yes") == verdicts("The") == (None, None, False)
    assert verdicts("no", "Emma") == (True, None, True)


def test_titles() -> None:
    assert verdicts("Emma", titles=["Emma", "Dune (novel)"]) == (True, True, True)
    assert verdicts("Emma", titles=["Emma", "Dune"]) == (True, False, False)
    assert verdicts("Persuasion", titles=["Emma"]) == (False, True, False)
    assert verdicts("yes", titles=["Emma"]) == (None, True, True)
    assert verdicts("yes", titles=["emma"]) == (None, False, False)
    assert verdicts("Emma", titles=[]) == (True, None, True)


WORDS = st.lists(st.sampled_from(["a", "The", "x", "y", "z.", "yes", "-"]), max_size=6).map(" ".join)


@given(
    st.lists(st.lists(WORDS, min_size=1, max_size=3), min_size=1, max_size=4),
    st.lists(st.tuples(WORDS, WORDS), max_size=4),
)
def test_the_same_as_passage_by_passage(answers: list[list[str]], texts: list[tuple[str, str]]) -> None:
    questions = [Question(str(n), "?", tuple(accepted)) for n, accepted in enumerate(answers)]
    passages = [Passage(str(n), title, text) for n, (title, text) in enumerate(texts)]
    for question, found in zip(questions, cover(questions, passages), strict=True):
        if {normalize(answer) for answer in question.answers} <= {"yes", "no", ""}:
            assert found.answer is None
        else:
            assert found.answer == any(holds_answer(passage, question.answers) for passage in passages)
