"""``study``: the papers' findings, put to the test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from searchr1.commands.options import Json, Settings
from searchr1.console import print_json, say, stdout
from searchr1.errors import SearchR1Error, UserError, nearest

if TYPE_CHECKING:
    from searchr1.studies.collect import Results
    from searchr1.studies.definition import Study
    from searchr1.studies.plan import Job
    from searchr1.studies.schedule import State

_MOST_JOBS = 8  # by default: a run takes about a gigabyte


def study(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="Studies: names (see --list) or .toml files.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where runs and results go.")] = Path(
        "runs/studies"
    ),
    seeds: Annotated[str | None, typer.Option("--seeds", metavar="0,1,2", help="Default: those of the study.")] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="Runs at a time. [one a core, at most 8]")] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Training steps of every run.")] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="VARIANT", help="Just this one; may be repeated.")
    ] = None,
    settings: Settings = None,
    show: Annotated[bool, typer.Option("--list", help="Show the studies there are.")] = False,
    gather: Annotated[
        Path | None, typer.Option("--collect", metavar="DIR", help="Make the tables of DIR again; train nothing.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train variants with several seeds, compare them, and say whether a finding of the papers holds here."""
    from searchr1.studies.collect import find_studies, read_study

    if show:
        _list(as_json)
        return
    if gather is not None:
        _report([_publish(read_study(folder), folder) for folder in find_studies(gather)], as_json)
        return
    if not names:
        raise UserError("study: expected the name of a study; see `searchr1 study --list`")
    planned = _plan(names, out, _seeds(seeds), jobs, [*(settings or []), *([f"steps={steps}"] if steps else [])], only)
    failed = _run(planned, out, jobs)
    _report([_publish(one, out / one.name) for one, _ in planned], as_json)
    if failed:
        first = failed[0]
        raise SearchR1Error(
            f"{len(failed)} of {sum(len(jobs) for _, jobs in planned)} runs failed, first {first.job.name}: "
            f"{first.problem}; see {first.job.log}, and run the same command again to go on"
        )


def _list(as_json: bool) -> None:
    from searchr1.commands.tables import table
    from searchr1.studies.definition import built_in_studies, load_study

    studies = [load_study(name) for name in built_in_studies()]
    if as_json:
        print_json([one.table() for one in studies])
        return
    shown = table("", "study", "variants", "question")
    for column in shown.columns[1:]:
        column.justify, column.no_wrap = "left", False
    for one in studies:
        optional = f" (and {', '.join(one.optional)})" if one.optional else ""
        shown.add_row(one.name, f"{', '.join(one.chosen())}{optional}", one.title)
    stdout().print(shown)


def _seeds(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(parts)) != len(parts):
        raise UserError(f"--seeds: expected different whole numbers like 0,1,2, got {text!r}")
    return [int(part) for part in parts]


def _plan(
    names: Sequence[str],
    out: Path,
    seeds: Sequence[int] | None,
    jobs: int | None,
    settings: Sequence[str],
    only: Sequence[str] | None,
) -> list[tuple[Study, list[Job]]]:
    """Everything is checked before anything is run. Raises UserError."""
    from searchr1.machine import usable_cores
    from searchr1.studies.definition import load_study
    from searchr1.studies.plan import plan

    given = _parsed(settings)
    studies = [load_study(name).changed(given) for name in dict.fromkeys(names)]
    known = {variant for one in studies for variant in one.variants}
    for variant in only or []:
        if variant not in known:
            raise UserError(f"--only: there is no variant {variant!r}{nearest(variant, known)}")
    threads = max(1, usable_cores() // _workers(jobs))
    return [(one, plan(one, out, one.chosen(only or ()), seeds or one.seeds, threads)) for one in studies]


def _parsed(settings: Sequence[str]) -> dict[str, Any]:
    from searchr1.retrieval.options import parse_value

    parsed = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {setting}: expected key=value, for example --set rollout.group_size=8")
        parsed[key.strip()] = parse_value(value.strip())
    return parsed


def _workers(jobs: int | None) -> int:
    from searchr1.machine import usable_cores

    return jobs or min(_MOST_JOBS, usable_cores())


def _run(planned: Sequence[tuple[Study, list[Job]]], out: Path, workers: int | None) -> list[State]:
    """Run what is not done; tables are up to date after every run. Returns what failed."""
    from searchr1.commands.study_board import watching
    from searchr1.studies.schedule import Schedule

    for one, _ in planned:
        _publish(one, out / one.name, draw=False)
    schedule = Schedule(
        [job for _, jobs in planned for job in jobs],
        _workers(workers),
        finished=lambda job: _publish(job.study, out / job.study.name, draw=False),
    )
    with watching(schedule.states) as board:
        try:
            schedule.run(board.look)
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt("interrupted; the same command goes on where the runs stopped") from stop
    return [state for state in schedule.states if state.phase == "failed"]


def _publish(one: Study, folder: Path, *, draw: bool = True) -> Results:
    """Write study.json, table.md and, with ``draw``, plot.svg."""
    from searchr1.studies import plot
    from searchr1.studies.collect import collect, write_json
    from searchr1.studies.table import PLOT, markdown

    results = collect(one, folder)
    write_json(results, folder)
    drawn = draw and plot.can_draw() and plot.draw(results, folder / PLOT)
    (folder / "table.md").write_text(markdown(results, plot=drawn), encoding="utf-8")
    return results


def _report(results: Sequence[Results], as_json: bool) -> None:
    """The verdicts on stdout, and where everything is."""
    from searchr1.commands.tables import table
    from searchr1.studies import plot
    from searchr1.studies.collect import as_json as document
    from searchr1.studies.definition import MEASURES
    from searchr1.studies.table import shown

    if as_json:
        print_json([document(one) for one in results])
    for one in results if not as_json else ():
        study = one.study
        made = table(study.title, "", "seeds", f"exact match, {study.decoding}, % [95%]", "searches")
        for name in one.runs:
            cells = [
                shown("exact_match", one.interval(name, "exact_match")),
                shown("searches", one.interval(name, "searches")),
            ]
            made.add_row(name, str(len(one.finished(name))), *cells)
        stdout().print(made)
        for judged in one.judged():
            expected = judged.expectation
            claim = f"{MEASURES[expected.of]}: {expected.higher} above {expected.lower}"
            difference = shown(expected.of, judged.difference, sign=True)
            stdout().print(f"  {judged.verdict:<12} {claim}: {difference}", soft_wrap=True)
        stdout().print()
    if not plot.can_draw():
        say(plot.HOW_TO_GET)
