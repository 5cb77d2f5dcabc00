"""Benchmarks become question files: ids, what is left out, sizes and hashes that are pinned."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.data.prepare import choose_split, content_hash, prepare_questions
from searchr1.data.questions import read_questions
from searchr1.data.sets import BENCHMARKS, PUBLISHED, Split
from searchr1.errors import UserError
from searchr1.types import Question

SEVEN = ("nq", "triviaqa", "popqa", "hotpotqa", "2wikimultihopqa", "musique", "bamboogle")


def bamboogle(path: Path, count: int) -> Path:
    path.write_text("Question,,,,Answer,Answer 2\n" + "".join(f"q{n}?,,,,a{n},\n" for n in range(count)))
    return path


def jsonl(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_seven_sets_of_the_paper() -> None:
    sizes = {name: BENCHMARKS[name].splits[BENCHMARKS[name].tested].questions for name in SEVEN}
    assert sizes == {
        "nq": 3_610, "triviaqa": 11_313, "popqa": 14_267, "hotpotqa": 7_405, "2wikimultihopqa": 12_576,
        "musique": 2_417, "bamboogle": 125,
    }  # fmt: skip
    mixture = BENCHMARKS["nq_hotpotqa_train"].splits
    assert sum(size or 0 for size in sizes.values()) == mixture["test"].questions == 51_713
    trained = [BENCHMARKS[name].splits["train"].questions or 0 for name in ("nq", "hotpotqa")]
    assert sum(trained) == mixture["train"].questions == 169_615
    assert set(BENCHMARKS) == {*SEVEN, "nq_hotpotqa_train"}


def test_every_file_that_the_paper_tests_on_is_pinned() -> None:
    pinned = [BENCHMARKS[name].splits[BENCHMARKS[name].tested].file.sha256 for name in SEVEN]
    assert all(value is not None and re.fullmatch("[0-9a-f]{64}", value) for value in pinned)
    assert len(set(pinned)) == len(SEVEN)


def test_the_published_index_is_its_passages_vectors_and_a_header() -> None:
    index, corpus = PUBLISHED["wiki18_e5"], PUBLISHED["wiki18"]
    assert sum(file.size or 0 for file in index.files) == index.memory + 45 == 64_559_075_373
    assert index.passages == corpus.passages


def test_ids_are_made_where_the_source_has_none(tmp_path: Path) -> None:
    made = prepare_questions("bamboogle", bamboogle(tmp_path / "b.csv", 125), tmp_path / "out.jsonl")
    questions = read_questions(tmp_path / "out.jsonl")
    assert (made.name, made.split, made.format, made.questions, made.doubts) == (
        "bamboogle",
        "test",
        "bamboogle",
        125,
        (),
    )
    assert questions[7] == Question("bamboogle-test-7", "q7?", ("a7",), "bamboogle", {"hops": 2})
    assert made.content_hash == content_hash(questions)


def test_ids_do_not_depend_on_what_is_left_out(tmp_path: Path) -> None:
    rows = [{"question": "a?", "answer": []}, {"question": "b?", "answer": ["b"]}]
    made = prepare_questions("nq", jsonl(tmp_path / "nq.jsonl", rows), tmp_path / "out.jsonl", split="dev")
    assert [question.id for question in read_questions(tmp_path / "out.jsonl")] == ["nq-dev-1"]
    assert (made.left_out, made.doubts) == ({"no answer": 1}, ())


def test_flashrag_and_parquet_agree_on_ids(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [
        {
            "data_source": name,
            "question": f"{name} {index}?",
            "reward_model": {"ground_truth": {"target": [str(index)]}},
            "extra_info": {"split": "test", "index": index},
        }
        for name in ("nq", "popqa")
        for index in range(2)
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "test.parquet")
    made = prepare_questions("nq", tmp_path / "test.parquet", tmp_path / "a.jsonl")
    assert (made.format, made.left_out) == ("verl", {"of another set": 2})
    assert made.doubts == ("expected 3,610 questions, got 2",)
    flashrag = [{"id": f"test_{n}", "question": f"nq {n}", "golden_answers": [str(n)]} for n in range(2)]
    other = prepare_questions("nq", jsonl(tmp_path / "test.jsonl", flashrag), tmp_path / "b.jsonl")
    ids = [[question.id for question in read_questions(tmp_path / name)] for name in ("a.jsonl", "b.jsonl")]
    assert ids == [["nq-test-0", "nq-test-1"]] * 2
    assert made.content_hash == other.content_hash
    mixed = prepare_questions("nq_hotpotqa_train", tmp_path / "test.parquet", tmp_path / "c.jsonl", split="test")
    assert (mixed.questions, mixed.left_out) == (4, {})
    assert {question.dataset for question in read_questions(tmp_path / "c.jsonl")} == {"nq", "popqa"}


def test_another_number_than_pinned(tmp_path: Path) -> None:
    source, out = bamboogle(tmp_path / "b.csv", 124), tmp_path / "out.jsonl"
    with pytest.raises(UserError, match="bamboogle test: expected 125 questions, got 124; without --strict"):
        prepare_questions("bamboogle", source, out, strict=True)
    assert not out.exists()
    assert prepare_questions("bamboogle", source, out).doubts == ("expected 125 questions, got 124",)
    limited = prepare_questions("bamboogle", source, out, limit=3, strict=True)
    assert (limited.questions, limited.doubts) == (3, ())


def test_another_content_than_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = bamboogle(tmp_path / "b.csv", 125)
    benchmark = BENCHMARKS["bamboogle"]
    found = prepare_questions("bamboogle", source, tmp_path / "out.jsonl").content_hash
    for content, doubts in ((found, ()), ("0" * 64, (f"expected content hash {'0' * 16}..., got {found[:16]}...",))):
        split = Split(benchmark.splits["test"].file, 125, content)
        monkeypatch.setattr(
            "searchr1.data.prepare.BENCHMARKS", {"bamboogle": replace(benchmark, splits={"test": split})}
        )
        assert prepare_questions("bamboogle", source, tmp_path / "out.jsonl").doubts == doubts


def test_train_files_of_the_sets_themselves_are_not_cut_as_the_hubs_are(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "nq.jsonl", [{"question": "a?", "answer": ["a"]}])
    assert prepare_questions("nq", source, tmp_path / "out.jsonl", split="train").doubts == ()
    assert prepare_questions("nq", source, tmp_path / "out.jsonl").doubts == ("expected 3,610 questions, got 1",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "hotpot"}, r"data set 'hotpot' is unknown; did you mean 'hotpotqa'\?"),
        ({"name": "popqa", "split": "train"}, "popqa has no split 'train'; it has test"),
        ({"format": "csv"}, "format 'csv' is unknown"),
        ({"format": "nq-open"}, r"b\.csv:1: expected one JSON object a line"),
    ],
)
def test_wrong_options(tmp_path: Path, arguments: dict[str, str], message: str) -> None:
    given = {"name": "bamboogle", "source": bamboogle(tmp_path / "b.csv", 1), "out": tmp_path / "o.jsonl", **arguments}
    with pytest.raises(UserError, match=message):
        prepare_questions(**given)  # type: ignore[arg-type]
    assert not (tmp_path / "o.jsonl").exists()


def test_nothing_is_written_for_a_bad_file(tmp_path: Path) -> None:
    rows = [{"id": "a", "question": "?", "golden_answers": ["x"]}]
    for more, message in (
        ([*rows, *rows], r"s\.jsonl:2: id 'a' was used before at .*s\.jsonl:1"),
        ([{**rows[0], "golden_answers": []}], r"expected questions of nq, found none \(1 no answer\)"),
        ([{**rows[0], "dataset": "popqa"}], r"found none \(1 of another set\)"),
        ([{**rows[0], "id": 1.5}], r"s\.jsonl:1: 'id': expected a non-blank string"),
    ):
        with pytest.raises(UserError, match=message):
            prepare_questions("nq", jsonl(tmp_path / "s.jsonl", more), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_the_split_that_the_paper_tests_on_is_the_default() -> None:
    assert [choose_split(name, None)[1] for name in SEVEN] == ["test", "test", "test", "dev", "dev", "dev", "test"]


QUESTIONS = st.lists(
    st.builds(
        Question,
        id=st.text(min_size=1),
        text=st.text(min_size=1),
        answers=st.lists(st.text(), min_size=1, max_size=3).map(tuple),
    ),
    max_size=5,
)


@given(QUESTIONS, st.randoms())
def test_the_content_hash_knows_no_order(questions: list[Question], random: object) -> None:
    turned = [replace(question, id="x", answers=question.answers[::-1]) for question in questions]
    random.shuffle(turned)  # type: ignore[attr-defined]
    assert content_hash(turned) == content_hash(questions)


@given(QUESTIONS)
def test_the_content_hash_sees_questions_and_answers(questions: list[Question]) -> None:
    more = Question("q", "who wrote dune", ("Herbert",))
    assert content_hash([*questions, more]) != content_hash(questions)
    assert content_hash([*questions, more]) != content_hash([*questions, replace(more, answers=("Austen",))])


def test_a_content_hash() -> None:
    """Worked out apart from the code; it may never change."""
    expected = hashlib.sha256(b'["a", ["a", "b c"]]').hexdigest()
    assert content_hash([Question("1", " a? ", ("b c", "a", "a"))]) == expected
