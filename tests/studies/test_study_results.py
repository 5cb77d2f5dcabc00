"""From run folders to numbers, verdicts, the table and the picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from made_runs import jobs_of, made_evaluation, made_run, small_study

from searchr1.errors import UserError
from searchr1.run import RunFolder
from searchr1.run_files import add_rows
from searchr1.studies import plot
from searchr1.studies.collect import Results, as_json, collect, find_studies, mean_curve, read_study, write_json
from searchr1.studies.measures import collapse, first_at, measure
from searchr1.studies.plan import plan
from searchr1.studies.table import markdown

EVALUATIONS = '[evaluations]\nown = ["--x"]\nother = ["--y"]'


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Left is 0.5, 0.6 and 0.7 after training, right 0.4, 0.49 and (unfinished) nothing."""
    study, out = small_study(tmp_path), tmp_path / "out"
    jobs = jobs_of(study, out)
    for seed in (0, 1, 2):
        final = 0.5 + seed / 10
        made_run(jobs["left", seed], [0.2, 0.4, 0.6, 0.2], [(0, 0.0), (2, 0.3), (4, final)], searches=1.0)
    made_run(jobs["right", 0], [0.2, 0.2, 0.5, 0.3], [(0, 0.0), (2, 0.2), (4, 0.4)], searches=1.5)
    made_run(jobs["right", 1], [0.2, 0.2, 0.3, 0.3], [(0, 0.0), (2, 0.2), (4, 0.49)], searches=1.6)
    made_run(jobs["right", 2], [0.1, 0.1], [(0, 0.0)])
    return collect(study, out / "sides")


def test_what_a_run_came_to(tmp_path: Path) -> None:
    study = small_study(tmp_path, tail=EVALUATIONS)
    job = jobs_of(study, tmp_path / "out")["left", 1]
    made_run(job, [0.2, 0.4, 0.6, 0.2], [(0, 0.0), (2, 0.3), (4, 0.5)], searches=1.25)
    made_evaluation(job, "own", {"a": {"n": 30, "exact_match": 0.5, "searches": 1.0},
                                 "b": {"n": 10, "exact_match": 0.9, "searches": 2.0},
                                 "c": {"n": 0, "failed": 5}})  # fmt: skip
    found = measure(study, job.folder, job.evaluation("own").parent)
    assert (found.seed, found.steps, found.finished) == (1, 4, True)
    assert found.values == {"exact_match": 0.5, "searches": 1.25, "sampled": 0.5, "greedy": 0.6,
                            "area": pytest.approx(0.35), "seconds": 6.0, "half": 3, "collapsed": 4}  # fmt: skip
    assert found.evaluations == {"own": {"exact_match": pytest.approx(0.6), "searches": 1.25},
                                 "before": {"exact_match": 0.0, "searches": 1.25}}  # fmt: skip
    assert found.training == ((1, 0.2), (2, 0.4), (3, 0.6), (4, 0.2))
    assert found.test == ((0, 0.0), (2, 0.3), (4, 0.5))


def test_the_decoding_that_counts_is_the_studys(tmp_path: Path) -> None:
    study = small_study(tmp_path, head='decoding = "greedy"')
    job = jobs_of(study, tmp_path / "out")["left", 0]
    made_run(job, [0.2] * 4, [(0, 0.0), (4, 0.5)])
    found = measure(study, job.folder, tmp_path)
    assert found.values["exact_match"] == 0.6
    assert found.test == ((0, 0.1), (4, 0.6))


def test_an_unfinished_run_has_curves_but_no_values(tmp_path: Path) -> None:
    job = jobs_of(small_study(tmp_path), tmp_path / "out")["left", 0]
    made_run(job, [0.2, 0.4], [(0, 0.0), (2, 0.3)])
    found = measure(small_study(tmp_path), job.folder, tmp_path)
    assert (found.steps, found.finished, found.values) == (2, False, {})
    assert found.test == ((0, 0.0), (2, 0.3))


def test_collapse_and_the_step_of_a_level() -> None:
    assert first_at((), 0.5) is None
    assert first_at(((1, 0.5),), 0.5) == 1
    assert collapse(()) is None
    assert collapse(((1, 0.6), (2, 0.3))) is None  # half is not below half
    assert collapse(((1, 0.6), (2, 0.29), (3, 0.9), (4, 0.1))) == 2
    assert collapse(((1, 0.19), (2, 0.0))) is None  # too little to fall from


def alarm(step: int, level: str, attempt: int, action: str = "log") -> dict[str, Any]:
    return {"step": step, "name": "reward", "level": level, "action": action, "attempt": attempt, "metric": "m",
            "value": 0.1, "limit": 0.2, "message": "fell"}  # fmt: skip


def test_alarms_and_what_a_rollback_took_back(tmp_path: Path) -> None:
    """Step 2 and 3 were played twice: the first time they fell to 0.1 and 0.05, and the alarm began at 2."""
    study = small_study(tmp_path)
    job = jobs_of(study, tmp_path / "out")["left", 0]
    made_run(job, [0.2, 0.4, 0.6, 0.3], [(4, 0.5)])
    with RunFolder.resume(job.folder, job.recipe.resolved()) as run:
        run.append_alarm(alarm(1, "warning", 0))
        run.append_alarm(alarm(2, "critical", 0))
        run.append_alarm(alarm(3, "critical", 0))
        run.append_alarm(alarm(3, "critical", 0, "rollback"))
        run.append_alarm(alarm(4, "critical", 1))
    rows = [{"step": at, "attempt": 0, "file": "metrics.jsonl", "train/exact_match": value}
            for at, value in ((2, 0.1), (3, 0.05))]  # fmt: skip
    lost = {"step": 2, "attempt": 0, "file": "eval.jsonl", "exact_match": 0.0}
    add_rows(job.folder / "rolled_back.jsonl", "searchr1-rolled-back", [*rows, lost])
    found = measure(study, job.folder, job.folder)
    assert found.taken_back == (((2, 0.1), (3, 0.05)),)
    assert found.alarms == ((2, 0.1), (4, 0.3))
    assert found.training == ((1, 0.2), (2, 0.4), (3, 0.6), (4, 0.3))
    pytest.importorskip("matplotlib", reason="needs the extra studies")
    assert plot.draw(collect(study, tmp_path / "out" / "sides"), tmp_path / "one.svg")
    assert plot.INCIDENTS in (tmp_path / "one.svg").read_text()


def test_verdicts_are_over_the_seeds_of_both(results: Results) -> None:
    first, second = results.judged()
    # 0.5 - 0.4 and 0.6 - 0.49: mean 0.105, standard deviation 0.0070711; 12.7062 x 0.0070711 / sqrt(2) = 0.063531
    assert first.difference is not None
    assert (first.difference.mean, first.difference.low, first.difference.high) == pytest.approx(
        (0.105, 0.041469, 0.168531), abs=1e-6
    )
    assert (first.difference.n, first.verdict) == (2, "agrees")
    # 0.5 and 0.6: mean 0.55, half width 0.635310
    assert second.difference is not None
    assert (second.difference.low, second.difference.high) == pytest.approx((-0.085310, 1.185310), abs=1e-6)
    assert second.verdict == "cannot tell"


TABLE = """\
# Left or right

Left is better. (a paper)

| variant | seeds | exact match, sampled, % | greedy, % | before, % | searches | \
mean in training, % | step of 50% | collapse | seconds |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| left | 3 | 60.0 [35.2, 84.8] | 70.0 [45.2, 94.8] | 0.0 [0.0, 0.0] | \
1.00 [1.00, 1.00] | 35.0 [35.0, 35.0] | 3, 3, 3 | 4, 4, 4 | 6 |
| right | 2 of 3 | 44.5 [-12.7, 101.7] | 54.5 [-2.7, 111.7] | 0.0 [0.0, 0.0] | \
1.55 [0.91, 2.19] | 27.5 [-4.3, 59.3] | 3, - | never | 6 |

| the finding implies | difference [95%] | seeds | verdict |
| --- | ---: | ---: | ---: |
| exact match: left above right | +10.5 [4.1, 16.9] | 2 | **agrees** |
| searches a question: right above left | +0.55 [-0.09, 1.19] | 2 | **cannot tell** |

4 steps; seeds 0, 1, 2. Brackets: 95% intervals over seeds (Student's t); differences are paired by seed. \
`agrees`: the interval of the difference lies above 0; `disagrees`: below; else `cannot tell`. Exact match and \
searches: test questions after training. Step of 50%: the first training step whose exact match reaches it, seed by \
seed. Collapse: the first step below half of the best before it, once that was at least 20%. Seconds: of training, \
evaluations apart.
"""


def test_the_table(results: Results) -> None:
    assert markdown(results) == TABLE
    assert "![Left or right](plot.svg)" in markdown(results, plot=True)


def test_a_table_of_nothing_yet(tmp_path: Path) -> None:
    page = markdown(collect(small_study(tmp_path, head='reading = "Mind the gap."'), tmp_path / "none"))
    assert "| left | 0 | - | - | - | - | - | - | - | - |" in page
    assert "| exact match: left above right | - | 0 | **cannot tell** |" in page
    assert "0 steps; seeds none yet." in page
    assert "\n\nMind the gap.\n\n" in page


def test_optional_variants_are_told_of_where_they_were_run(tmp_path: Path) -> None:
    study, out = small_study(tmp_path, head='optional = ["left"]'), tmp_path / "out"
    assert list(collect(study, out / "sides").runs) == ["right"]
    assert "| exact match: left above right | - | 0 | **cannot tell** |" in markdown(collect(study, out / "sides"))
    (job,) = plan(study, out, ["left"], [0], threads=1)
    made_run(job, [0.2] * 4, [(4, 0.5)])
    assert list(collect(study, out / "sides").runs) == ["left", "right"]


def test_a_matrix_of_evaluations(tmp_path: Path) -> None:
    study, out = small_study(tmp_path, tail=EVALUATIONS), tmp_path / "out"
    jobs = jobs_of(study, out)
    for seed in (0, 1):
        made_run(jobs["left", seed], [0.2] * 4, [(4, 0.5)])
        made_evaluation(jobs["left", seed], "other", {"a": {"n": 10, "exact_match": 0.4, "searches": 2.0}})
    results = collect(study, out / "sides")
    assert results.values("left@other", "exact_match") == {0: 0.4, 1: 0.4}
    page = markdown(results)
    assert "| trained (down), evaluated (across): exact match, sampled, % | own | other |" in page
    assert "| left | - | 40.0 [40.0, 40.0] |" in page
    assert "| left, searches | - | 2.00 [2.00, 2.00] |" in page
    assert as_json(results)["variants"]["left"]["evaluations"]["other"]["mean"] == 0.4


def test_curves_are_averaged_where_all_seeds_are() -> None:
    assert mean_curve([]) == []
    found = mean_curve([((1, 0.2), (2, 0.4), (3, 0.5)), ((1, 0.4), (2, 0.4))])
    assert [(step, at.mean) for step, at in found] == [(1, pytest.approx(0.3)), (2, 0.4)]


def test_the_document_holds_everything_and_finds_the_study_again(results: Results, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "sides"
    write_json(results, folder)
    document = json.loads((folder / "study.json").read_text())
    assert (document["format"], document["version"], document["name"]) == ("searchr1-study", 1, "sides")
    assert document["expectations"][0]["verdict"] == "agrees"
    assert document["expectations"][0]["difference"]["mean"] == pytest.approx(0.105)
    assert document["variants"]["left"]["means"]["exact_match"]["mean"] == pytest.approx(0.6)
    assert document["variants"]["right"]["runs"][2]["finished"] is False
    assert read_study(folder) == results.study
    assert find_studies(folder) == find_studies(tmp_path / "out") == [folder]


def test_folders_that_hold_no_study(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected a folder with studies, found no study\.json"):
        find_studies(tmp_path)
    with pytest.raises(UserError, match=r"expected the folder of a study, found no study\.json"):
        read_study(tmp_path)
    (tmp_path / "study.json").write_text('{"format": "searchr1-run", "version": 1}')
    with pytest.raises(UserError, match="expected the format 'searchr1-study'"):
        read_study(tmp_path)


def test_the_picture(results: Results, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra studies")
    assert plot.draw(results, tmp_path / "one.svg")
    ElementTree.parse(tmp_path / "one.svg")
    assert plot.draw(results, tmp_path / "two.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_no_picture_of_nothing(tmp_path: Path) -> None:
    assert not plot.draw(collect(small_study(tmp_path), tmp_path / "none"), tmp_path / "one.svg")
    assert not (tmp_path / "one.svg").exists()
