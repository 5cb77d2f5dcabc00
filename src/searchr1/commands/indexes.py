"""``index build``, ``add``, ``delete``, ``search`` and ``eval``."""

from __future__ import annotations

import asyncio
import shutil
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from searchr1.commands.options import Json
from searchr1.console import percent, print_json, progress, say, stdout, visible
from searchr1.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from searchr1.ports import Retriever
    from searchr1.retrieval.index import Backend, Estimate

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="An index folder.")]
Corpus = Annotated[Path, typer.Argument(metavar="CORPUS", help="JSON lines, also gzipped: id, title, text.")]
_SPEC = "An index folder, a URL, KIND:key=value or a .toml file."
_RECALLS = {"answer_recall": "answer", "title_recall": "titles", "all_titles_recall": "all titles"}
_SAMPLE = 2000
_PLANNED_WITH = 64


def build(
    corpus: Corpus,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to make.")],
    kind: Annotated[str, typer.Option("--kind", help="The kind of index.")] = "bm25",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option of the kind, as title_weight=0.2.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the index that is there.")] = False,
) -> None:
    """Index a corpus. The folder appears complete or not at all."""
    from searchr1.retrieval.index import build_index, load_backend

    options = dict(map(_setting, settings or []))
    planned = False
    started = time.perf_counter()
    with progress("indexing", "passages") as advance:

        def advance_with_plan(done: int, total: int | None) -> None:
            nonlocal planned
            if not planned:  # not before the first passages were found to be good
                planned = True
                say(_plan(corpus, out, load_backend(kind, options)))
            advance(done, total)

        built = build_index(corpus, out, kind=kind, options=options, overwrite=overwrite, progress=advance_with_plan)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    seconds = time.perf_counter() - started
    say(f"{out}: {built.passages:,} passages, {kind}, {size / 1e6:,.1f} MB, in {seconds:.1f} s")


def add(folder: Folder, corpus: Corpus) -> None:
    """Add passages to an index; ids that are in it already get the new passage. Searches may go on meanwhile."""
    from searchr1.retrieval.update import add_passages

    started = time.perf_counter()
    with progress("indexing", "passages") as advance:
        updated = add_passages(folder, corpus, advance)
    seconds = time.perf_counter() - started
    say(
        f"{folder}: {updated.added:,} added, {updated.replaced:,} replaced; {updated.manifest.passages:,} passages, "
        f"in {seconds:.1f} s"
    )


def delete(
    folder: Folder,
    ids: Annotated[list[str] | None, typer.Option("--id", metavar="ID", help="An id; may be repeated.")] = None,
    file: Annotated[Path | None, typer.Option("--ids", metavar="FILE", help="A file with an id a line.")] = None,
) -> None:
    """Delete passages from an index. Searches may go on meanwhile."""
    from searchr1.retrieval.update import delete_passages

    wanted = [*(ids or []), *(_lines(file) if file else [])]
    if not wanted:
        raise UserError("expected ids of passages: --id ID, or --ids FILE with an id a line")
    started = time.perf_counter()
    updated = delete_passages(folder, wanted)
    unknown = updated.unknown
    told = f", {len(unknown):,} not found ({', '.join(unknown[:3])}{', ...' if unknown[3:] else ''})" if unknown else ""
    left, seconds = updated.manifest.passages, time.perf_counter() - started
    say(f"{folder}: {updated.deleted:,} deleted{visible(told)}; {left:,} passages, in {seconds:.1f} s")


def search(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help=_SPEC)],
    query: Annotated[str, typer.Argument(metavar="QUERY")],
    k: Annotated[int, typer.Option("-k", help="Passages to show.")] = 3,
    as_json: Json = False,
) -> None:
    """Show the passages that a query finds."""
    from rich.padding import Padding
    from rich.text import Text

    [found] = asyncio.run(_opened(spec).search([query], k))
    if as_json:
        print_json([{"id": p.id, "title": p.title, "text": p.text, "score": p.score} for p in found])
        return
    if not found:
        say("nothing found")
    for place, passage in enumerate(found, start=1):
        stdout().print(Text.assemble(f"{place}. ", (visible(passage.title), "bold"), (f"  {passage.score:.2f}", "dim")))
        stdout().print(Padding(Text(visible(passage.text)), (0, 0, 0, 3)))


def evaluate(
    given: Annotated[list[str], typer.Argument(metavar="SPEC", help=_SPEC)],
    data: Annotated[list[str], typer.Option("--data", metavar="FILE...", help="Question files.")],
    k: Annotated[list[int] | None, typer.Option("-k", help="Passages that count; may be repeated. [3 5 10]")] = None,
    as_json: Json = False,
) -> None:
    """How often the passages found for a raw question hold its answer, and its supporting titles."""
    from searchr1.evaluation.recall import recall
    from searchr1.retrieval.spec import open_retriever
    from searchr1.sources import check_reachable, load_questions

    spec, *more = given
    questions = load_questions([*data, *more])
    check_reachable(spec)
    with progress("searching", "questions") as advance:
        result = asyncio.run(recall(open_retriever(spec), questions, k or (3, 5, 10), progress=advance))
    if as_json:
        print_json(result)
    else:
        stdout().print(_recall_table(result))


def _opened(spec: str) -> Retriever:
    """What reads as a path is taken for an index folder, so that a wrong one is told what makes a right one."""
    from searchr1.retrieval import BACKENDS, SEARCH_ENGINES
    from searchr1.retrieval.index import open_index
    from searchr1.retrieval.spec import open_retriever

    described = ":" in spec or spec.endswith(".toml") or spec in {*SEARCH_ENGINES, *BACKENDS}
    return open_retriever(spec) if described else open_index(spec)


def _recall_table(result: dict[str, Any]) -> Table:
    from searchr1.commands.tables import table

    found = {name: result[key] for key, name in _RECALLS.items() if result[key]}
    ks = list(next(iter(found.values()), {}))
    shown = table(f"Recall of {result['n']:,} questions [95%]", "", *(f"in the first {k}" for k in ks))
    for name, figures in found.items():
        cells = [figures[k] for k in ks]
        shown.add_row(
            name, *(f"{percent(c['value'])} [{100 * c['ci_low']:.1f}, {100 * c['ci_high']:.1f}]" for c in cells)
        )
    return shown


def _lines(file: Path) -> list[str]:
    try:
        return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--ids {file}: expected a text file with an id a line: {error}") from error


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"--set {text}: expected key=value, for example --set title_weight=0.2")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def _plan(corpus: Path, out: Path, backend: Backend) -> str:
    """What the index will take, from the first passages of the corpus."""
    estimate, exact = _estimate(corpus)
    plan = backend.plan(estimate)
    existing = next(parent for parent in [out, *out.resolve().parents] if parent.exists())
    free = shutil.disk_usage(existing).free
    short = "; this may not fit" if free < plan.disk_bytes else ""
    about = "" if exact else "about "
    for row in plan.choices:
        say("  ".join(f"{cell:<16}" for cell in row))
    return (
        f"plan: {about}{estimate.passages:,} passages; at most {plan.memory_bytes / 1e9:.1f} GB of memory; about "
        f"{plan.disk_bytes / 1e6:,.1f} MB of disk, {free / 1e9:,.1f} GB are free{short}"
    )


def _estimate(corpus: Path) -> tuple[Estimate, bool]:
    """Passages and bytes, from the first lines of the file; whether they are all of it."""
    from itertools import islice

    from searchr1.retrieval.corpus import read_corpus
    from searchr1.retrieval.index import Estimate

    text, read = _sample(corpus)
    size = corpus.stat().st_size
    passages = round(len(text) * max(1.0, size / read))
    sample = tuple(islice(read_corpus(corpus), _PLANNED_WITH))
    return Estimate(passages, passages * sum(map(len, text)) // len(text), sample), read >= size


def _sample(corpus: Path) -> tuple[Sequence[bytes], int]:
    """The first lines, and how many bytes of the file they take."""
    import gzip
    from itertools import islice

    with corpus.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        lines = list(islice(gzip.GzipFile(fileobj=raw) if packed else raw, _SAMPLE))
        return lines, raw.tell() if packed else sum(map(len, lines))
