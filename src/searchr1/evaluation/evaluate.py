"""Evaluation: every question once through an agent, scores with intervals, and the evaluation folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from types import UnionType
from typing import Any

from searchr1.agents.rollout import Job, rollout
from searchr1.data.jsonl import encode, read_rows, replacing, write_rows
from searchr1.errors import UserError
from searchr1.evaluation.bootstrap import macro_interval, mean_interval
from searchr1.ports import Agent, Engine, Retriever
from searchr1.rewards import DIAGNOSTICS, build_reward
from searchr1.seeds import derive_seed
from searchr1.types import Question, Scored, Search, SearchOutcome, Trajectory

FORMAT = {"format": "searchr1-evaluation", "version": 1}
_EXECUTED = (SearchOutcome.FOUND, SearchOutcome.EMPTY)


async def evaluate(
    questions: Sequence[Question],
    agent: Agent,
    engine: Engine,
    retriever: Retriever,
    *,
    seed: int = 0,
    concurrency: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> list[Trajectory]:
    """One trajectory for every question, none dropped, in the order of ``questions``.

    At most ``concurrency`` questions are under way at once; each has the seed ``derive_seed(seed, question.id)``, so
    neither concurrency nor order changes a result. ``progress(done, total)`` is called after every question.
    """
    jobs = [Job(question, derive_seed(seed, question.id)) for question in questions]
    return await rollout(jobs, agent, engine, retriever, concurrency=concurrency, progress=progress)


def score_trajectories(trajectories: Sequence[Trajectory]) -> list[Scored]:
    """Trajectories with exact match as the reward, and cover match and F1 among the components."""
    return build_reward({"exact_match": 1.0}).score_group(trajectories)


def summarize(scored: Sequence[Scored], *, seed: int = 0) -> dict[str, Any]:
    """``{"datasets": {NAME: figures}, "macro": figures}`` in the order in which the datasets appear.

    Figures are ``n``, ``exact_match`` with its 95% bootstrap interval ``ci_low``, ``ci_high``, ``cover_match``, ``f1``,
    ``searches`` (mean executed searches) and ``failed``. A failed trajectory is counted in ``failed`` and in nothing
    else; figures without a scored trajectory are None. ``macro`` is the unweighted mean over the datasets that have a
    score, as in arXiv 2503.09516, table 2; its ``n`` and ``failed`` are sums. Raises ValueError for no trajectories.
    """
    if not scored:
        raise ValueError("no trajectories to summarize")
    names = dict.fromkeys(item.trajectory.question.dataset for item in scored)
    groups = {name: [item for item in scored if item.trajectory.question.dataset == name] for name in names}
    datasets = {name: _figures(group, seed) for name, group in groups.items()}
    return {"datasets": datasets, "macro": _macro(datasets, groups, seed)}


def _figures(group: Sequence[Scored], seed: int) -> dict[str, Any]:
    kept = _kept(group)
    figures: dict[str, Any] = {"n": len(kept)}
    if kept:
        mean, low, high = mean_interval(_exact_matches(kept), seed)
        figures |= {"exact_match": mean, "ci_low": low, "ci_high": high}
        figures |= {name: fmean(item.components[name] for item in kept) for name in ("cover_match", "f1")}
        figures["searches"] = fmean(item.trajectory.searches for item in kept)
    else:
        figures |= dict.fromkeys(("exact_match", "ci_low", "ci_high", "cover_match", "f1", "searches"))
    return figures | {"failed": len(group) - len(kept)}


def _macro(datasets: dict[str, dict[str, Any]], groups: dict[str, list[Scored]], seed: int) -> dict[str, Any]:
    kept = [group for group in (_kept(group) for group in groups.values()) if group]
    macro = dict(_figures([], seed))
    if kept:
        mean, low, high = macro_interval([_exact_matches(group) for group in kept], seed)
        macro |= {"exact_match": mean, "ci_low": low, "ci_high": high}
        for name in ("cover_match", "f1", "searches"):
            macro[name] = fmean(figures[name] for figures in datasets.values() if figures["n"])
    return macro | {name: sum(figures[name] for figures in datasets.values()) for name in ("n", "failed")}


def _kept(group: Sequence[Scored]) -> list[Scored]:
    return [item for item in group if not item.trajectory.failed]


def _exact_matches(group: Sequence[Scored]) -> list[float]:
    return [item.components["exact_match"] for item in group]


def write_eval(out_dir: str | Path, scored: Sequence[Scored], *, seed: int = 0) -> dict[str, Any]:
    """Write ``predictions.jsonl`` (one row a question) and then ``summary.json``; the summary is also returned.

    Each file appears whole or not at all, and the summary last: where it is, the folder is complete and of one piece.
    ``seed`` is that of the intervals.
    """
    folder = Path(out_dir)
    summary = FORMAT | summarize(scored, seed=seed)
    (folder / "summary.json").unlink(missing_ok=True)
    write_rows(folder / "predictions.jsonl", (prediction_row(item) for item in scored))
    with replacing(folder / "summary.json") as stream:
        stream.write(encode(summary, indent=2) + b"\n")
    return summary


def prediction_row(item: Scored) -> dict[str, Any]:
    """One line of ``predictions.jsonl``. The scores of a failed trajectory are null: it has none."""
    trajectory, question = item.trajectory, item.trajectory.question
    executed = (turn.action for turn in trajectory.turns if turn.search in _EXECUTED)
    return {
        "id": question.id,
        "dataset": question.dataset,
        "question": question.text,
        "answers": list(question.answers),
        "prediction": trajectory.answer,
        "stop": str(trajectory.stop),
        "searches": trajectory.searches,
        "queries": [action.query for action in executed if isinstance(action, Search)],
        **{name: None if trajectory.failed else item.components[name] for name in DIAGNOSTICS},
        "failed": trajectory.failed,
        "seed": trajectory.seed,
    }


def read_predictions(folder: str | Path) -> list[dict[str, Any]]:
    """The rows that `write_eval` wrote.

    Raises UserError when the folder is not an evaluation of this format version, and for a row that lacks what makes
    it comparable: its question (``id``, ``dataset``, ``question``, ``answers``), ``failed``, and the number
    ``exact_match`` unless it failed.
    """
    folder = Path(folder)
    path = folder / "predictions.jsonl"
    if not path.is_file():
        raise UserError(f"{folder}: expected an evaluation folder, but it has no {path.name}; run searchr1 eval first")
    _check_version(folder / "summary.json")
    return [_checked_prediction(row, place) for place, row in read_rows(path)]


def _check_version(summary: Path) -> None:
    """The version is in the summary alone, so that every line of the predictions is a prediction."""
    try:
        written = json.loads(summary.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{summary}: expected the summary of a finished evaluation: {error}") from error
    found = {key: written.get(key) for key in FORMAT} if isinstance(written, dict) else written
    if found != FORMAT:
        raise UserError(f"{summary}: expected {FORMAT}, got {found}; evaluate again with this version of searchr1")


def _checked_prediction(row: dict[str, Any], place: str) -> dict[str, Any]:
    kinds: dict[str, type | UnionType] = {"id": str, "dataset": str, "question": str, "answers": list, "failed": bool}
    if row.get("failed") is False:
        kinds["exact_match"] = int | float
    for key, kind in kinds.items():
        if not isinstance(row.get(key), kind):
            raise UserError(f"{place}: {key!r} is missing or ill-typed, got {row.get(key)!r}; run searchr1 eval again")
    return row
