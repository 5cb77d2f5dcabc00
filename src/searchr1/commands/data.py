"""``data atlas`` and ``data prepare``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from searchr1.commands.options import Json, Seed
from searchr1.console import print_json, progress, say, visible
from searchr1.errors import UserError, nearest

if TYPE_CHECKING:
    from searchr1.data.sets import File, Published

_LARGE = 200_000_000
"""Bytes from which on a plan is shown before the download."""


def atlas(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to make.")],
    seed: Seed = None,
    entities: Annotated[int, typer.Option("--entities", help="Pages of the encyclopedia.")] = 3000,
) -> None:
    """Generate the encyclopedia: corpus.jsonl, train.jsonl and test.jsonl, the same for the same seed."""
    from searchr1.data.atlas.write import write_atlas

    with progress("writing", "pages") as advance:
        made = write_atlas(out, seed=seed or 0, entities=entities, progress=advance)
    sizes = made["sizes"]
    say(f"{out}: {sizes['corpus']:,} pages, {sizes['train']:,} training and {sizes['test']:,} test questions")


def prepare(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="nq, triviaqa, popqa, hotpotqa, 2wikimultihopqa, musique, bamboogle, nq_hotpotqa_train; "
            "wiki18 (passages), wiki18_e5 (their index).",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="What to write.")],
    source: Annotated[
        Path | None, typer.Option("--source", metavar="FILE", help="A local file, in place of the hub's.")
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="train, dev or test. [the one that the paper tests on]")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="Of --source: flashrag, verl, hotpotqa, 2wikimultihopqa, musique, nq-open, popqa, bamboogle or "
            "triviaqa. [by its content]",
        ),
    ] = None,
    aliases: Annotated[
        Path | None, typer.Option("--aliases", metavar="FILE", help="id_aliases.json of 2WikiMultihopQA.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse what is not as it is pinned.")] = False,
    as_json: Json = False,
) -> None:
    """Fetch or convert a benchmark, its passages or their index; what is written appears whole or not at all."""
    from searchr1.data.sets import BENCHMARKS, PUBLISHED

    if name not in BENCHMARKS and name not in PUBLISHED:
        raise UserError(f"data set {name!r} is unknown{nearest(name, [*BENCHMARKS, *PUBLISHED])}")
    if name in PUBLISHED:
        if given := [option for option, value in (("--split", split), ("--format", format)) if value]:
            raise UserError(f"{given[0]}: {name} is no set of questions, it has none")
        told = _prepare_published(name, PUBLISHED[name], source, out, limit, strict)
    else:
        told = _prepare_questions(name, source, out, split, format, aliases, limit, strict)
    if as_json:
        print_json(told)


def _prepare_questions(
    name: str,
    source: Path | None,
    out: Path,
    split: str | None,
    format: str | None,
    aliases: Path | None,
    limit: int | None,
    strict: bool,
) -> dict[str, Any]:
    from searchr1.data.prepare import choose_split, prepare_questions

    benchmark, split, pinned = choose_split(name, split)
    doubts: list[str] = []
    local = source
    if local is None:
        local = out.with_name(f".{out.name}.source{Path(pinned.file.path).suffix}")
        doubts = _fetch([pinned.file], local, strict)
    made = prepare_questions(name, local, out, split=split, format=format, aliases=aliases, limit=limit, strict=strict)
    if source is None:
        local.unlink()
    told = dataclasses.asdict(made)
    told["doubts"] = [*doubts, *made.doubts]
    left_out = "".join(f", {count:,} left out ({reason})" for reason, count in made.left_out.items())
    say(f"{out}: {made.questions:,} questions of {benchmark.title} {split}{left_out}; licence: {benchmark.licence}")
    say(f"content hash {made.content_hash}" + ("" if limit is None else ", of these only"))
    _warn(told["doubts"])
    return told


def _prepare_published(
    name: str, published: Published, source: Path | None, out: Path, limit: int | None, strict: bool
) -> dict[str, Any]:
    from searchr1.data.archive import unpack_corpus

    if not published.unpacked:
        if source is not None or limit is not None:
            option = "--limit" if source is None else "--source"
            raise UserError(f"{option}: {name} is taken as it is; parts that you have are joined with `cat`")
        doubts = _fetch(published.files, out, strict, memory=published.memory)
        say(f"{out}: {published.title}, {published.passages:,} vectors; licence: {published.licence}")
        _warn(doubts)
        return {"name": name, "bytes": out.stat().st_size, "passages": published.passages, "doubts": doubts}
    if out.exists():
        raise UserError(f"{out}: expected a new file, it is there already; remove it or choose another --out")
    local, doubts = source, []
    if local is None:
        local = out.with_name(f".{out.name}.source")
        doubts = _fetch(published.files, local, strict, unpacked=0 if limit else published.unpacked)
    with progress("unpacking", "passages") as advance:
        count = unpack_corpus(local, out, limit=limit, total=published.passages, progress=advance)
    if limit is None and count != published.passages:
        doubts.append(f"expected {published.passages:,} passages, got {count:,}")
        if strict:
            out.unlink()
            raise UserError(f"{name}: {doubts[-1]}; without --strict it is taken all the same")
    if source is None:
        local.unlink()
    say(f"{out}: {count:,} passages of {published.title}; licence: {published.licence}")
    _warn(doubts)
    return {"name": name, "bytes": out.stat().st_size, "passages": count, "doubts": doubts}


def _fetch(files: Sequence[File], target: Path, strict: bool, *, unpacked: int = 0, memory: int = 0) -> list[str]:
    """Fetch files of the hub into one; what is doubtful about them, which is an error with ``strict``."""
    from searchr1.data.download import describe, fetch, hub_url, plan

    doubts: list[str] = []
    remotes = []
    for file, remote in zip(files, describe([hub_url(f.repository, f.path) for f in files]), strict=True):
        if file.size is not None and file.size != remote.size:
            doubts.append(f"{file.path}: expected {file.size:,} bytes, the hub has {remote.size:,}")
        elif file.sha256 is not None and remote.digest and file.sha256 != remote.digest:
            doubts.append(f"{file.path}: expected the hash {file.sha256[:16]}..., the hub says {remote.digest[:16]}...")
        elif not remote.digest and not file.sha256:
            doubts.append(f"{file.path}: the server gives no hash of it, so what came was not checked")
        remotes.append(dataclasses.replace(remote, digest=remote.digest or file.sha256 or ""))
    if doubts and strict:
        raise UserError(f"{doubts[0]}; without --strict it is taken all the same")
    made = plan(remotes, target, unpacked)
    if max(made.fetch, made.disk) >= _LARGE:
        say(
            f"to fetch: {_gigabytes(made.fetch)}; on disk: at most {_gigabytes(made.disk)} more, "
            f"{_gigabytes(made.free)} are free"
        )
    if memory:
        say(
            f"to search it: {_gigabytes(memory)} of memory, this machine has {_gigabytes(_memory())} (with less it is "
            "read from the disk at every search)"
        )
    with progress("fetching", "MB") as advance:
        fetch(remotes, target, lambda done, total: advance(done // 10**6, total and -(-total // 10**6)))
    return doubts


def _warn(doubts: Sequence[str]) -> None:
    for doubt in doubts:
        say(f"warning: {visible(doubt)}", "yellow")


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"


def _memory() -> int:
    import os

    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
