"""``data overlap`` and ``data coverage``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from searchr1.commands.options import Json
from searchr1.console import percent, print_json, progress, say, stdout, visible
from searchr1.errors import UserError

if TYPE_CHECKING:
    from searchr1.data.coverage import Coverage
    from searchr1.data.overlap import Pair
    from searchr1.types import Passage, Question

_EXAMPLES = 8
Questions = Annotated[Path, typer.Argument(metavar="QUESTIONS", help="A question file.")]


def overlap(
    a: Annotated[Path, typer.Argument(metavar="A", help="Questions, as a test set.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Other questions, as a training set.")],
    threshold: Annotated[float, typer.Option("--threshold", help="Jaccard similarity from which on it is near.")] = 0.8,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write every pair, JSON lines.")] = None,
    clean: Annotated[
        Path | None, typer.Option("--clean", metavar="FILE", help="Write B without the questions that are in A.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Count the questions of A that stand in B too, equal or nearly so."""
    from searchr1.data.jsonl import write_rows
    from searchr1.data.overlap import overlap as find
    from searchr1.data.questions import read_questions, write_questions

    if not 0 < threshold <= 1:
        raise UserError(f"--threshold: expected a number above 0 and at most 1, got {threshold:g}")
    left, right = read_questions(a), read_questions(b)
    with progress("comparing", "questions") as advance:
        pairs = find(left, right, threshold, advance)
    told = {
        "threshold": threshold,
        "a": _share(left, [(pair.a, pair) for pair in pairs]),
        "b": _share(right, [(pair.b, pair) for pair in pairs]),
        "pairs": len(pairs),
        "worst": [_pair_row(pair) for pair in _worst(pairs)],
    }
    if out is not None:
        write_rows(out, map(_pair_row, pairs))
        say(f"{out}: {len(pairs):,} pairs")
    if clean is not None:
        dirty = {id(pair.b) for pair in pairs}
        kept = [question for question in right if id(question) not in dirty]
        write_questions(clean, kept)
        say(f"{clean}: {len(kept):,} of {len(right):,} questions")
    if as_json:
        print_json(told)
    else:
        _show_overlap(told, a, b)


def coverage(
    questions: Questions,
    corpus: Annotated[Path | None, typer.Option("--corpus", metavar="FILE", help="Passages, JSON lines.")] = None,
    index: Annotated[Path | None, typer.Option("--index", metavar="DIR", help="An index folder.")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the covered questions.")] = None,
    as_json: Json = False,
) -> None:
    """Count the questions that a corpus can answer: an accepted answer stands in it, all supporting pages do."""
    from searchr1.data.coverage import cover
    from searchr1.data.questions import read_questions, write_questions

    asked = read_questions(questions)
    with progress("reading", "passages") as advance:
        found = cover(asked, _passages(corpus, index, advance))
    told = {"datasets": {name: _figures(rows) for name, rows in _by_dataset(found).items()}}
    if out is not None:
        kept = [result.question for result in found if result.covered]
        write_questions(out, kept)
        say(f"{out}: {len(kept):,} of {len(asked):,} questions")
    if as_json:
        print_json(told)
    else:
        _show_coverage(told["datasets"])


def _share(questions: Sequence[Question], paired: Iterable[tuple[Question, Pair]]) -> dict[str, Any]:
    best: dict[int, Pair] = {}
    for question, pair in paired:
        if id(question) not in best or pair.exact > best[id(question)].exact:
            best[id(question)] = pair
    exact = sum(pair.exact for pair in best.values())
    share = len(best) / len(questions)
    return {"n": len(questions), "exact": exact, "near": len(best) - exact, "overlapping": len(best), "share": share}


def _worst(pairs: Sequence[Pair]) -> list[Pair]:
    return sorted(pairs, key=lambda pair: (-pair.exact, -pair.similarity, -pair.same_answer))[:_EXAMPLES]


def _pair_row(pair: Pair) -> dict[str, Any]:
    sides = {side: {"id": q.id, "dataset": q.dataset, "question": q.text} for side, q in (("a", pair.a), ("b", pair.b))}
    return {**sides, "similarity": pair.similarity, "exact": pair.exact, "same_answer": pair.same_answer}


def _show_overlap(told: Mapping[str, Any], a: Path, b: Path) -> None:
    from searchr1.commands.tables import table

    made = table(f"Overlap, similarity at least {told['threshold']:g}", "", "questions", "equal", "near", "share")
    for name, side in ((str(a), told["a"]), (str(b), told["b"])):
        made.add_row(visible(name), f"{side['n']:,}", f"{side['exact']:,}", f"{side['near']:,}", percent(side["share"]))
    stdout().print(made)
    for row in told["worst"]:
        kind = "equal" if row["exact"] else f"{row['similarity']:.2f}"
        answers = "same answer" if row["same_answer"] else "other answers"
        stdout().print(f"{kind}, {answers}", style="dim")
        stdout().print(f"  {visible(row['a']['question'])}\n  {visible(row['b']['question'])}", soft_wrap=True)


def _passages(corpus: Path | None, index: Path | None, advance: Any) -> Iterator[Passage]:
    from searchr1.retrieval.corpus import read_corpus
    from searchr1.retrieval.index import read_manifest
    from searchr1.retrieval.store import CorpusStore

    if (corpus is None) == (index is None):
        raise UserError(f"expected --corpus FILE or --index DIR, got {'neither' if corpus is None else 'both'}")
    if corpus is not None:
        yield from read_corpus(corpus, advance)
    elif index is not None:
        total = read_manifest(index).passages
        store = CorpusStore(index)
        for place in range(len(store)):
            yield store.passage(place)
            advance(place + 1, total)


def _by_dataset(found: Sequence[Coverage]) -> dict[str, list[Coverage]]:
    sets: dict[str, list[Coverage]] = {}
    for result in found:
        sets.setdefault(result.question.dataset, []).append(result)
    return sets


def _figures(rows: Sequence[Coverage]) -> dict[str, Any]:
    return {
        "n": len(rows),
        "answer": _interval([row.answer for row in rows]),
        "titles": _interval([row.titles for row in rows]),
        "covered": sum(row.covered for row in rows),
    }


def _interval(values: Iterable[bool | None]) -> dict[str, Any] | None:
    """Of those that count; None where none does."""
    from searchr1.evaluation.bootstrap import mean_interval

    counted = [float(value) for value in values if value is not None]
    if not counted:
        return None
    value, low, high = mean_interval(counted)
    return {"n": len(counted), "value": value, "ci_low": low, "ci_high": high}


def _show_coverage(datasets: Mapping[str, Any]) -> None:
    from searchr1.commands.tables import table

    made = table("In the corpus", "dataset", "questions", "answer [95%]", "of", "all titles [95%]", "of", "covered")
    for name, figures in datasets.items():
        cells = [cell for key in ("answer", "titles") for cell in _cells(figures[key])]
        made.add_row(visible(name), f"{figures['n']:,}", *cells, f"{figures['covered']:,}")
    stdout().print(made)


def _cells(figure: Mapping[str, Any] | None) -> tuple[str, str]:
    if figure is None:
        return "-", "0"
    value, low, high = (100 * figure[key] for key in ("value", "ci_low", "ci_high"))
    return f"{value:.1f}% [{low:.1f}, {high:.1f}]", f"{figure['n']:,}"
