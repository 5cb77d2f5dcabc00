"""What is to be run, in which order, and what is refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_runs import jobs_of, made_evaluation, made_run, small_study

from searchr1.config import load_recipe
from searchr1.errors import UserError
from searchr1.run import RunFolder
from searchr1.studies.plan import PREPARED, Job, plan, tasks

HEAD = 'prepare = [["data", "atlas", "--out", "{out}/atlas", "--entities", "{data.atlas_entities}"]]'
TAIL = 'prepare = [["sft", "--seed", "{seed}"]]\nmodel = "{out}/sft"\n[evaluations]\nother = ["--retriever", "{out}/i"]'


def all_tasks(job: Job) -> list[tuple[str, tuple[str, ...]]]:
    return list(tasks(job))


def test_all_variants_of_a_seed_come_before_the_next_seed(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    jobs = plan(study, tmp_path / "out", ["left", "right"], [3, 1], threads=2)
    assert [job.name for job in jobs] == ["sides/left/seed-3", "sides/right/seed-3",
                                          "sides/left/seed-1", "sides/right/seed-1"]  # fmt: skip
    assert jobs[1].folder == tmp_path / "out" / "sides" / "right" / "seed-3"
    assert (jobs[1].recipe.seed, jobs[1].recipe.engine.threads) == (3, 2)
    assert not (tmp_path / "out").exists()


def test_training_is_the_ordinary_command_line(tmp_path: Path) -> None:
    job = jobs_of(small_study(tmp_path), tmp_path / "out")["left", 1]
    ((phase, command),) = all_tasks(job)
    assert (phase, command[:2], command[-2:]) == ("training", ("train", "atlas"), ("--out", str(job.folder)))
    settings = command[2:-2]
    assert set(settings[::2]) == {"--set"}
    assert load_recipe("atlas", settings[1::2]) == job.recipe
    assert "evaluation.baselines=[]" in settings
    assert "seed=1" in settings


def test_a_killed_run_is_resumed_and_a_finished_one_is_left(tmp_path: Path) -> None:
    jobs = jobs_of(small_study(tmp_path), tmp_path / "out")
    made_run(jobs["left", 0], [0.1, 0.2], [])
    made_run(jobs["left", 1], [0.1, 0.2, 0.3, 0.4], [(4, 0.5)])
    assert (jobs["left", 0].done, jobs["left", 0].steps_done()) == (False, 2)
    ((_, command),) = all_tasks(jobs["left", 0])
    assert command[-1] == "--resume"
    assert (jobs["left", 1].done, jobs["left", 1].steps_done()) == (True, 4)
    assert all_tasks(jobs["left", 1]) == []
    assert (jobs["left", 2].done, jobs["left", 2].steps_done()) == (False, 0)


def test_preparation_and_evaluations(tmp_path: Path) -> None:
    study = small_study(tmp_path, HEAD, TAIL)
    job = jobs_of(study, tmp_path / "out")["right", 1]
    prepared = tmp_path / "out" / "sides" / "right" / "seed-1.prepared"
    assert job.recipe.model == f"{prepared}/sft"
    order = tasks(job)
    assert next(order) == ("preparing", ("data", "atlas", "--out", f"{prepared}/atlas", "--entities", "3000"))
    assert next(order) == ("preparing", ("sft", "--seed", "1"))
    assert not (prepared / PREPARED).exists()

    (prepared / "half").touch()  # as if it had been killed here: preparing begins again
    assert [phase for phase, _ in tasks(job)] == ["preparing", "preparing", "training", "evaluating"]
    assert not (prepared / "half").exists()
    assert (prepared / PREPARED).exists()

    left = job.evaluation("other")
    left.mkdir(parents=True)
    (left / "predictions.jsonl").touch()  # of an evaluation that was killed
    expected = ("eval", str(job.folder), "--limit", "300", "--decoding", "sampled", "--retriever", f"{prepared}/i")
    order = tasks(job)
    assert next(order)[0] == "training"
    made_run(job, [0.1] * 4, [(4, 0.5)])
    assert next(order) == ("evaluating", (*expected, "--out", str(left)))
    assert not left.exists()
    assert not job.done
    made_evaluation(job, "other", {})
    assert job.done
    assert all_tasks(job) == []


def test_what_was_prepared_otherwise_is_refused(tmp_path: Path) -> None:
    job = jobs_of(small_study(tmp_path, HEAD, TAIL), tmp_path / "out")["right", 1]
    all_tasks(job)
    (job.prepared / PREPARED).write_text('[["sft"]]')
    assert [phase for phase, _ in all_tasks(job)][:2] == ["preparing", "preparing"]  # nothing was made with it yet
    made_run(job, [0.1], [])
    (job.prepared / PREPARED).write_text('[["sft"]]')
    with pytest.raises(UserError, match=r"seed-1\.prepared: the run began with what other commands had prepared"):
        all_tasks(job)


def test_preparation_may_take_over_the_settings_of_the_run(tmp_path: Path) -> None:
    job = jobs_of(small_study(tmp_path, 'prepare = [["sample", "{settings}", "--x"]]'), tmp_path / "out")["left", 0]
    ((name, *settings, last),) = job.prepare
    assert (name, last) == ("sample", "--x")
    assert load_recipe("atlas", settings[1::2]) == job.recipe


def test_changed_settings_are_refused_whatever_is_to_be_run(tmp_path: Path) -> None:
    study, out = small_study(tmp_path), tmp_path / "out"
    job = jobs_of(study, out)["left", 2]
    made_run(job, [0.1, 0.2, 0.3, 0.4], [(4, 0.5)])
    with pytest.raises(UserError) as refusal:
        plan(study.changed({"rollout.top_k": 1}), out, ["right"], [0], threads=1)
    assert str(refusal.value) == (
        f"{job.folder}: expected the settings it was started with, changed: rollout.top_k (2 -> 1); restore or use "
        "another --out"
    )
    with pytest.raises(UserError, match=r"changed: steps \(4 -> 5\)"):
        plan(study.changed({"steps": 5}), out, ["left"], [2], threads=1)
    plan(study.changed({"save.keep": 3}), out, ["left", "right"], [0, 2], threads=1)


def test_a_run_goes_on_with_the_threads_that_it_began_with(tmp_path: Path) -> None:
    study, out = small_study(tmp_path), tmp_path / "out"
    made_run(jobs_of(study, out)["left", 0], [0.1], [])
    left, right = plan(study, out, ["left", "right"], [0], threads=7)
    assert (left.recipe.engine.threads, right.recipe.engine.threads) == (1, 7)
    RunFolder.resume(left.folder, left.recipe.resolved()).close()  # what `train --resume` would refuse, it refuses


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        ("optimizer.learning_rte = 1", "study sides, variant right: unknown key 'optimizer.learning_rte'"),
        ('model = "{uot}/x"', "study sides, variant right: '{uot}/x': there is nothing called {uot}"),
        ('prepare = [["{data.atlas_sed}"]]', "there is nothing called {data.atlas_sed}"),
        ("rollout.temperature = 0.0", "training needs rollout.temperature > 0"),
    ],
)
def test_mistakes_are_found_before_anything_is_run(tmp_path: Path, tail: str, message: str) -> None:
    study = small_study(tmp_path, tail=tail)
    with pytest.raises(UserError) as refusal:
        plan(study, tmp_path / "out", ["left", "right"], [0], threads=1)
    assert message in str(refusal.value)
    assert not (tmp_path / "out").exists()
