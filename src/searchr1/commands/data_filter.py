"""``data filter``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from searchr1.commands.options import Json
from searchr1.console import print_json, say
from searchr1.errors import UserError

if TYPE_CHECKING:
    from searchr1.data.difficulty import Attempt


def filter_by_difficulty(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="What `sample --keep all` wrote, a run's trajectories, evaluations."),
    ],
    data: Annotated[Path, typer.Option("--data", metavar="QUESTIONS", help="The questions to choose from.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the chosen ones go.")],
    low: Annotated[float, typer.Option("--min", help="Least share of right answers.")] = 0.2,
    high: Annotated[float, typer.Option("--max", help="Greatest share of right answers.")] = 0.8,
    as_json: Json = False,
) -> None:
    """Keep the questions that a policy gets right sometimes: not too often, not too seldom, by exact match."""
    from searchr1.data.difficulty import choose
    from searchr1.data.questions import read_questions, write_questions

    asked = read_questions(data)
    chosen = choose(asked, (attempt for file in files for attempt in _attempts(file)), low, high)
    if not chosen.attempts:
        raise UserError(f"{data}: none of its questions was answered in these files; were others sampled?")
    write_questions(out, chosen.kept)
    seen = len(asked) - chosen.unseen
    told = {
        "n": len(asked), "kept": len(chosen.kept), "too_easy": chosen.too_easy, "too_hard": chosen.too_hard,
        "unseen": chosen.unseen, "attempts": chosen.attempts, "foreign": chosen.foreign,
    }  # fmt: skip
    if as_json:
        print_json(told)
    say(
        f"{out}: kept {len(chosen.kept):,} of {len(asked):,} questions; {chosen.too_easy:,} too easy (above {high:g}), "
        f"{chosen.too_hard:,} too hard (below {low:g}), {chosen.unseen:,} unseen; {chosen.attempts / seen:.1f} answers "
        "each"
    )
    if chosen.foreign:
        say(f"{chosen.foreign:,} answers were to questions that are not in {data}")
    if chosen.attempts == seen:
        say("warning: one answer a question cannot tell hard from unlucky; sample several", "yellow")


def _attempts(path: Path) -> Iterator[Attempt]:
    """Of a file of trajectories, or of the predictions of an evaluation (the file, or its folder)."""
    from searchr1.data.sets.rows import open_bytes
    from searchr1.run import TRAJECTORIES
    from searchr1.run_files import parse_object
    from searchr1.supervised.attempts import predicted, sampled

    file = path / "predictions.jsonl" if path.is_dir() else path
    with open_bytes(file) as stream:
        first = next(iter(stream), b"")
    if not first.strip():
        raise UserError(f"{file}: expected trajectories or predictions, the file is empty")
    known = parse_object(first, f"{file}, line 1").get("format") == TRAJECTORIES
    yield from sampled(file) if known else predicted(file)
