"""The table's numbers, by hand and by the functions that they come from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from evaluations import Right, settings, write

from searchr1.errors import UserError
from searchr1.evaluation.bootstrap import macro_interval, paired_macro_difference, wilson
from searchr1.evaluation.paired import mcnemar
from searchr1.evaluation.pooled import pooled_difference, pooled_interval
from searchr1.leaderboard.board import AVERAGE, Board, Cell, Cost, as_json, build_board
from searchr1.leaderboard.drawings import COLORS, Label, budget_chart, dot_plots
from searchr1.leaderboard.entries import read_entries


def right(count: int, of: int = 100) -> list[float]:
    return [1.0] * count + [0.0] * (of - count)


def board(path: Path, *entries: tuple[dict[str, Any], Right | Mapping[str, Right]], metric: str = "exact_match",
          **row: Any) -> Board:  # fmt: skip
    paths = [write(path / f"run{place}", values, given, **row) for place, (given, values) in enumerate(entries)]
    return build_board(read_entries(paths), metric)


def cells(made: Board, column: str | None = None) -> list[Cell]:
    """One column, by default the last, from top to bottom; no cell of it is empty."""
    found = [line.cells[column or made.columns[-1]] for line in made.lines]
    assert None not in found
    return [cell for cell in found if cell is not None]


def test_one_data_set_by_hand(tmp_path: Path) -> None:
    made = board(
        tmp_path, (settings("a"), right(30)), (settings("b"), right(60)), (settings("c"), right(57)),
        (settings("d"), right(50)),
    )  # fmt: skip
    assert made.questions == {"nq": 100}
    assert made.columns == ["nq"]
    a, b, c, d = cells(made)
    assert (b.value, b.low, b.high, b.n, b.best) == (0.6, *wilson(60, 100), 100, True)
    assert (b.difference, b.p_value, b.p_holm, b.tied) == (None, None, None, False)
    assert (a.difference, a.p_value) == (pytest.approx(-0.3), mcnemar(30, 0))
    assert (c.p_value, d.p_value) == (mcnemar(3, 0), mcnemar(10, 0))
    assert a.p_holm == pytest.approx(3 * mcnemar(30, 0))
    assert d.p_holm == pytest.approx(2 * mcnemar(10, 0))
    assert [cell.tied for cell in (a, c, d)] == [False, True, False]
    assert made.lines[1].overall == b
    assert made.notes == ()


def test_equals_at_the_top_are_both_the_best(tmp_path: Path) -> None:
    one, two = cells(board(tmp_path, (settings("a"), right(5, 9)), (settings("b"), right(5, 9))))
    assert (one.best, two.best, one.tied, two.tied) == (True, True, False, False)


def test_the_papers_order_and_the_average(tmp_path: Path) -> None:
    sets = {"own": right(10, 20), "bamboogle": right(5, 10), "nq": right(40, 80)}
    other = {"nq": right(20, 80), "own": right(10, 20), "bamboogle": right(1, 10)}
    made = board(tmp_path, (settings("a"), sets), (settings("b"), other))
    assert made.columns == ["nq", "bamboogle", "own", AVERAGE]
    best, worse = cells(made, AVERAGE)
    groups = [sets[name] for name in ("nq", "bamboogle", "own")]
    assert (best.value, best.low, best.high) == pytest.approx(macro_interval(groups))
    pairs = [(sets[name], other[name]) for name in ("nq", "bamboogle", "own")]
    difference, _, _, p_value = paired_macro_difference(pairs)
    assert (worse.difference, worse.p_value) == pytest.approx((difference, p_value))
    assert (worse.n, worse.tied) == (110, False)


def test_seeds_are_pooled(tmp_path: Path) -> None:
    tables = [right(50), right(56), right(62)]
    entries = [(settings("grpo", model=f"runs/grpo/seed-{seed}"), table) for seed, table in enumerate(tables)]
    made = board(tmp_path, *entries, (settings("rag"), right(40)))
    pooled, rag = cells(made)
    assert (pooled.value, pooled.low, pooled.high) == pytest.approx(pooled_interval([tables]))
    assert (rag.difference, rag.p_value) == pytest.approx(pooled_difference([tables], [[right(40)]])[::3])
    assert pooled.high - pooled.low > 2 * (pooled_interval([[tables[1]] * 3])[2] - pooled.value)
    assert made.notes == (f"grpo: 3 seeds, pooled: {tmp_path}/run0, {tmp_path}/run1, {tmp_path}/run2",)
    assert made.lines[0].asked == 300


def test_seeds_that_agree_on_everything_have_the_interval_of_the_questions(tmp_path: Path) -> None:
    entries = [(settings("grpo", model=f"runs/grpo/seed-{seed}"), right(100)) for seed in range(3)]
    [cell] = cells(board(tmp_path, *entries))
    assert (cell.value, cell.low, cell.high) == (1.0, *wilson(100, 100))


def test_failures_are_left_out_counted_and_flagged(tmp_path: Path) -> None:
    made = board(tmp_path, (settings("a"), [None, None, 1, 0, *right(50, 50)]), (settings("b"), right(30, 54)))
    a, b = made.lines
    cell, other = cells(made)
    assert (cell.n, cell.value, a.failed, a.asked, a.many_failures) == (52, 51 / 52, 2, 54, True)
    assert (b.failed, b.many_failures) == (0, False)
    assert other.difference == pytest.approx(28 / 52 - 51 / 52)  # on the questions that failed in neither
    assert made.notes == (
        "a: 2 of 54 answers (3.7%) failed through no fault of the policy and are left out; evaluate again before you "
        "trust the figures",
    )
    few = board(tmp_path / "few", (settings("a"), [None, *right(50, 99)]))
    assert not few.lines[0].many_failures


def test_other_questions_are_said_and_left_out(tmp_path: Path) -> None:
    a = write(tmp_path / "a", right(40, 50), settings("a"))
    b = write(tmp_path / "b", right(10, 20), settings("b"), first=35)
    made = build_board(read_entries([a, b]))
    assert made.questions == {"nq": 15}
    assert [cell.value for cell in cells(made)] == [5 / 15, 10 / 15]
    assert made.notes == (
        "nq: a has 50 questions; compared on the 15 that all have",
        "nq: b has 20 questions; compared on the 15 that all have",
    )
    c = write(tmp_path / "c", [1], settings("c"), first=50)
    with pytest.raises(UserError, match="have no question of nq in common"):
        build_board(read_entries([a, c]))
    d = write(tmp_path / "d", right(1, 50), settings("d"), question="another?")
    with pytest.raises(UserError, match="nq '0' is not the same question in both"):
        build_board(read_entries([a, d]))
    with pytest.raises(UserError, match="at least one evaluation folder"):
        build_board([])


def test_a_data_set_that_one_lacks(tmp_path: Path) -> None:
    made = board(tmp_path, (settings("a"), {"nq": right(1, 4), "popqa": right(2, 4)}), (settings("b"), {"nq": [1.0]}))
    assert made.questions == {"nq": 1, "popqa": 4}
    assert made.lines[1].cells["popqa"] is made.lines[1].overall is None
    average = made.lines[0].overall
    assert average is not None
    assert (average.best, average.value) == (True, 0.75)
    assert "b: not evaluated, or failed throughout, on popqa" in made.notes
    nothing = board(tmp_path / "failed", (settings("a"), [None]))
    assert nothing.lines[0].overall is None


def test_what_it_took(tmp_path: Path) -> None:
    sets = {"nq": right(1, 4), "popqa": right(3, 4)}
    made = board(tmp_path, (settings("a"), sets), (settings("b"), {"nq": right(0, 4), "popqa": right(0, 4)}))
    assert made.lines[0].costs["searches"] == Cost(2.0, 4.0)
    assert made.lines[0].costs["seconds"] == Cost(0.5, 1.0)
    assert made.lines[1].costs["policy_tokens"] == Cost(50.0, None)
    unknown = board(tmp_path / "unknown", (settings("a"), sets), seconds=None)
    assert unknown.lines[0].costs["seconds"] is None


def test_samples_and_other_metrics(tmp_path: Path) -> None:
    a, b = ([[1, 1], [0, 1], [0, 0]], [[1, 0], [0, 0], [0, 0]])
    one, two = cells(board(tmp_path, (settings("a"), a), (settings("b"), b)))
    assert (one.value, two.value, one.n) == (0.5, pytest.approx(1 / 6), 3)
    made = board(tmp_path / "f1", (settings("a"), right(2, 4)), metric="f1", f1=0.25)
    (cell,) = cells(made)
    assert (cell.value, cell.low, cell.high) == (0.25, 0.25, 0.25)


def test_order_of_folders_changes_no_number(tmp_path: Path) -> None:
    paths = [write(tmp_path / str(n), right(n), settings(f"e{n}")) for n in (20, 45, 50)]
    there, back = (as_json(build_board(read_entries(order))) for order in (paths, paths[::-1]))
    assert sorted(there["entries"], key=str) == sorted(back["entries"], key=str)


def test_the_json_shape(tmp_path: Path) -> None:
    made = as_json(board(tmp_path, (settings("a"), right(3, 4)), (settings("b"), right(2, 4))))
    assert list(made) == ["format", "version", "metric", "questions", "entries", "notes"]
    entry = made["entries"][1]
    assert list(entry) == ["name", "settings", "folders", "cells", "cost", "failed", "asked"]
    low, high = wilson(2, 4)
    assert entry["cells"] == {
        "nq": {
            "value": 0.5, "ci_low": low, "ci_high": high, "n": 4, "best": False, "tied": True, "difference": -0.25,
            "p_value": 1.0, "p_holm": 1.0,
        },
    }  # fmt: skip
    assert entry["cost"]["searches"] == {"per_question": 2.0, "per_correct": 4.0}


def test_curves_join_what_differs_in_its_budget_alone(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"s{n}", right(20 * n + 10), settings("PPO", max_searches=n), searches=n) for n in (2, 1)]
    paths.append(write(tmp_path / "rag", right(25), settings("RAG", agent="rag"), searches=1))
    chart = budget_chart(build_board(read_entries(paths)))
    assert chart
    assert [[point.name for point in curve.points] for curve in chart.curves] == [
        ["PPO, budget 1", "PPO, budget 2"],
        ["RAG"],
    ]
    assert [curve.color for curve in chart.curves] == [0, COLORS - 1]
    one, two = chart.curves[0].points
    assert one.x < two.x
    assert one.y > two.y
    assert two.high < two.y < two.low  # pixels count from the top
    assert chart.across[0].at < chart.across[-1].at
    assert [tick.label for tick in chart.up] == ["0", "15", "30", "45", "60"]
    labels = [point.label for curve in chart.curves for point in curve.points]
    assert not any(one.touches(other) for one in labels for other in labels if one is not other)
    assert budget_chart(build_board(read_entries(paths[:1]))) is None


def test_dots_stand_where_their_values_are(tmp_path: Path) -> None:
    (plot,) = dot_plots(board(tmp_path, (settings("a" * 40), right(30)), (settings("b"), right(60))))
    first, second = plot.dots
    assert (first.kind, second.kind) == ("", "best")
    assert first.low < first.x < first.high < second.x
    assert (first.short, plot.top, plot.title) == ("a" * 13 + "…" + "a" * 10, "80%", "NQ")
    assert Label(0, 0, "start", 10).touches(Label(5, 5, "end", 10))
    assert not Label(0, 0, "start", 10).touches(Label(5, 20, "start", 10))


def test_a_data_set_may_not_take_the_place_of_the_average(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a data set is called 'average'"):
        board(tmp_path / "two", (settings("a"), {"nq": right(1, 3), AVERAGE: right(3, 3)}))
    [line] = board(tmp_path / "one", (settings("a"), {AVERAGE: right(3, 3)})).lines
    assert line.overall is not None
    assert line.overall.value == 1.0
