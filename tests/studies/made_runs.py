"""A small study, and run folders as `searchr1 train` would have left them, with numbers that tests can count on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from searchr1.run import RunFolder
from searchr1.studies.definition import Study, load_study
from searchr1.studies.plan import Job, plan

DEFINITION = """
title = "Left or right"
source = "a paper"
finding = "Left is better."
{head}
expectations = [
    {{higher = "left", lower = "right", of = "exact_match"}},
    {{higher = "right", lower = "left", of = "searches"}},
]

[shared]
steps = 4
evaluation.every = 2

[variants.left]
optimizer.learning_rate = 1e-3

[variants.right]
optimizer.learning_rate = 1e-4
{tail}
"""


def study_file(folder: Path, head: str = "", tail: str = "") -> Path:
    path = folder / "sides.toml"
    path.write_text(DEFINITION.format(head=head, tail=tail))
    return path


def small_study(folder: Path, head: str = "", tail: str = "") -> Study:
    return load_study(str(study_file(folder, head, tail)))


def jobs_of(study: Study, out: Path, seeds: Sequence[int] = (0, 1, 2)) -> dict[tuple[str, int], Job]:
    return {(job.variant, job.seed): job for job in plan(study, out, study.chosen(), seeds, threads=1)}


def made_run(job: Job, training: Sequence[float], test: Sequence[tuple[int, float]], searches: float = 2.0) -> None:
    """A run with so many steps of ``training`` and the evaluations ``test``, finished where all steps are there.

    Greedy exact match is 0.1 above the sampled one; a step takes 1.5 seconds.
    """
    with RunFolder.create(job.folder, job.recipe.resolved()) as run:
        for step, value in enumerate(training, start=1):
            run.append_metrics({"step": step, "train/exact_match": value, "time/step": 1.5})
        for step, value in test:
            for decoding, more in (("sampled", 0.0), ("greedy", 0.1)):
                row: dict[str, Any] = {"step": step, "agent": "search_r1", "decoding": decoding, "n": 100}
                part = {**row, "dataset": "one-hop", "exact_match": 1.0, "searches": 9.0}
                run.append_eval(part)  # of one data set: not the figure that counts
                run.append_eval({**row, "dataset": "all", "exact_match": value + more, "searches": searches})
        run.append_eval(
            {"step": 0, "agent": "rag", "decoding": "sampled", "dataset": "all", "n": 9, "exact_match": 0.9}
        )
    if len(training) == job.recipe.steps:
        (job.folder / "checkpoints" / f"step-{len(training)}").mkdir(parents=True)


def made_evaluation(job: Job, name: str, sets: dict[str, dict[str, float]]) -> None:
    folder = job.evaluation(name)
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({"datasets": sets, "macro": {}}))
