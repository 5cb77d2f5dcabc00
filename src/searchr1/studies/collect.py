"""All runs of a study together: intervals over seeds, verdicts, and the files that tell of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from searchr1.errors import UserError
from searchr1.run_files import check_format, parse_object, replacing
from searchr1.studies.definition import BEFORE, COMPARABLE, Expectation, Study, parse_study
from searchr1.studies.intervals import Interval, Verdict, interval, paired, verdict
from searchr1.studies.measures import Curve, Measured, measure

FILE = "study.json"
FORMAT = "searchr1-study"


@dataclass(frozen=True)
class Judged:
    """An expectation and what the runs say of it."""

    expectation: Expectation
    difference: Interval | None
    verdict: Verdict


@dataclass(frozen=True)
class Results:
    """Everything that is known of a study; ``runs`` by variant, seeds ascending, unfinished ones too.

    Optional variants are in it only where they were run.
    """

    study: Study
    runs: Mapping[str, Sequence[Measured]]

    def values(self, reference: str, of: str) -> dict[int, float]:
        """A measure of a variant, or of ``variant@evaluation``, by seed, where it is known."""
        variant, at, evaluation = reference.partition("@")
        found = {
            run.seed: (run.evaluations.get(evaluation, {}) if at else run.values).get(of)
            for run in self.runs.get(variant, ())
        }
        return {seed: value for seed, value in found.items() if value is not None}

    def interval(self, reference: str, of: str) -> Interval | None:
        values = self.values(reference, of)
        return interval(list(values.values())) if values else None

    def judged(self) -> list[Judged]:
        """Every expectation of the study, differences paired by seed."""
        judged = []
        for expectation in self.study.expectations:
            higher, lower = (self.values(name, expectation.of) for name in (expectation.higher, expectation.lower))
            difference = paired(higher, lower)
            judged.append(Judged(expectation, difference, verdict(difference)))
        return judged

    def finished(self, variant: str) -> list[Measured]:
        return [run for run in self.runs[variant] if run.finished]

    @property
    def seeds(self) -> list[int]:
        """Seeds of which any run is finished."""
        return sorted({run.seed for variant in self.runs for run in self.finished(variant)})


def collect(study: Study, folder: Path) -> Results:
    """Read every run that is in the study's folder. Raises UserError for what is not readable."""
    runs = {}
    for name in study.variants:
        found = [path.parent for path in (folder / name).glob("seed-*/config.json")]
        if not found and name in study.optional:
            continue
        measured = [measure(study, path, path.with_name(f"{path.name}.evaluations")) for path in found]
        runs[name] = sorted(measured, key=lambda run: run.seed)
    return Results(study, runs)


def mean_curve(curves: Sequence[Curve]) -> list[tuple[int, Interval]]:
    """The interval over seeds at every step that all curves have."""
    if not curves:
        return []
    values = [dict(points) for points in curves]
    steps = sorted(set.intersection(*(set(points) for points in values)))
    return [(step, interval([points[step] for points in values])) for step in steps]


def as_json(results: Results) -> dict[str, Any]:
    """The document of ``study.json``, which holds the study's definition too."""
    study = results.study
    variants = {}
    for name, runs in results.runs.items():
        means = {of: results.interval(name, of) for of in (*COMPARABLE, "sampled", "greedy")}
        swaps = {at: results.interval(f"{name}@{at}", "exact_match") for at in (BEFORE, *study.evaluations)}
        variants[name] = {
            "means": {of: asdict(found) for of, found in means.items() if found},
            "evaluations": {at: asdict(found) for at, found in swaps.items() if found},
            "runs": [asdict(run) for run in runs],
        }
    expectations = [
        {**asdict(one.expectation), "difference": one.difference and asdict(one.difference), "verdict": one.verdict}
        for one in results.judged()
    ]
    head = {"format": FORMAT, "version": 1, "name": study.name, "seeds": results.seeds}
    return {**head, "expectations": expectations, "variants": variants, "study": study.table()}


def write_json(results: Results, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / FILE) as file:
        file.write((json.dumps(as_json(results), indent=1, allow_nan=False) + "\n").encode())
    return folder / FILE


def read_study(folder: Path) -> Study:
    """The definition that the runs of a study's folder were made with. Raises UserError."""
    path = folder / FILE
    if not path.is_file():
        raise UserError(f"{folder}: expected the folder of a study, found no {FILE} in it; check the path")
    document = parse_object(path.read_bytes(), str(path))
    check_format(document, FORMAT, str(path))
    return parse_study(document.get("study", {}), str(path))


def find_studies(folder: Path) -> list[Path]:
    """``folder`` if it holds one study, else the folders in it that do. Raises UserError where there is none."""
    if (folder / FILE).is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{FILE}"))
    if not found:
        raise UserError(f"{folder}: expected a folder with studies, found no {FILE} in it; check the path")
    return found
