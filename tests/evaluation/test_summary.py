"""Figures of rows: what counts, what is left out, and what each number is the mean of."""

import pytest
from evaluation_parts import mixed, question, rows_of, trajectory

from searchr1.evaluation.bootstrap import mean_interval
from searchr1.evaluation.summary import summarize
from searchr1.types import StopReason

SCORES = ("exact_match", "ci_low", "ci_high", "cover_match", "f1", "searches", "policy_tokens", "retrieved_tokens",
          "prompt_tokens", "seconds", "search_seconds", "answer_retrieved")  # fmt: skip


def test_failures_are_counted_by_kind_and_left_out_of_everything_else() -> None:
    summary = summarize(rows_of(mixed()))
    a, b, c, macro = (*(summary["datasets"][name] for name in "abc"), summary["macro"])
    assert list(summary["datasets"]) == ["a", "b", "c"]
    assert (a["n"], a["failed"], a["search_failures"], a["engine_errors"]) == (3, 1, 1, 0)
    assert (a["exact_match"], a["cover_match"], a["f1"]) == pytest.approx((1 / 3, 1 / 3, 0.5))
    assert (a["exact_match"], a["ci_low"], a["ci_high"]) == mean_interval([1.0, 0.0, 0.0])
    assert (a["searches"], a["answer_retrieved"]) == (1.0, 0.0)
    assert (b["n"], b["exact_match"], b["retrieved_tokens"]) == (1, 1.0, 1.0)
    assert {name: c[name] for name in SCORES} == dict.fromkeys(SCORES)
    assert (c["n"], c["failed"], c["engine_errors"]) == (0, 1, 1)
    assert (macro["n"], macro["failed"], macro["search_failures"], macro["engine_errors"]) == (4, 2, 1, 1)
    assert (macro["exact_match"], macro["cover_match"], macro["f1"]) == pytest.approx((2 / 3, 2 / 3, 0.75))
    assert set(a) == set(b) == set(c) == set(macro)


def test_questions_are_the_unit_where_each_was_sampled_several_times() -> None:
    rows = []
    for name, answers in (("1", ["red fox", "dog"]), ("2", ["dog", "dog"]), ("3", ["red fox", None])):
        for sample, answer in enumerate(answers):
            stop = StopReason.ENGINE_ERROR if answer is None else None
            [row] = rows_of([trajectory(question(name), answer, stop=stop)])
            rows.append(row | {"sample": sample})
    figures = summarize(rows)["datasets"]["demo"]
    assert (figures["n"], figures["failed"]) == (3, 1)
    assert (figures["exact_match"], figures["ci_low"], figures["ci_high"]) == mean_interval([0.5, 0.0, 1.0])
    assert figures["pass_at"]["1"]["value"] == pytest.approx(0.5)


def test_all_failed_and_nothing_at_all() -> None:
    summary = summarize(rows_of(mixed()[4:]))
    assert (summary["macro"]["n"], summary["macro"]["exact_match"], summary["macro"]["failed"]) == (0, None, 2)
    with pytest.raises(ValueError, match="no predictions"):
        summarize([])


def test_rows_of_the_first_version_have_fewer_figures() -> None:
    old = [{key: row[key] for key in ("id", "dataset", "exact_match", "cover_match", "f1", "searches", "failed")}
           for row in rows_of(mixed()[:3])]  # fmt: skip
    figures = summarize(old)["datasets"]["a"]
    assert (figures["exact_match"], figures["policy_tokens"], figures["answer_retrieved"]) == (0.5, None, None)
