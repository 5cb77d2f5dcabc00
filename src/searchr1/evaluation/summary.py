"""From the rows of an evaluation to its figures: means with intervals, by data set and over data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from searchr1.evaluation.bootstrap import macro_interval, mean_interval
from searchr1.evaluation.rows import COSTS, Row
from searchr1.types import StopReason

SCORES = ("exact_match", "cover_match", "f1")
_MEANS = ("cover_match", "f1", *COSTS)


def summarize(rows: Sequence[Row], *, seed: int = 0) -> dict[str, Any]:
    """``{"datasets": {NAME: figures}, "macro": figures}``, the data sets in the order in which the rows have them.

    Figures are ``n`` (questions with a score), ``exact_match`` with its 95% interval ``ci_low``, ``ci_high``,
    ``cover_match``, ``f1``; per question ``searches``, ``policy_tokens``, ``retrieved_tokens``, ``prompt_tokens``,
    ``seconds`` and ``search_seconds``; ``answer_retrieved`` (the share of searched questions for which a passage held
    an accepted answer); and the counts ``failed``, ``search_failures`` and ``engine_errors``. Where questions were
    sampled several times, each counts with its mean, so that intervals are over questions; ``pass_at`` and
    ``majority`` are added (`searchr1.evaluation.repeated`).

    A failed trajectory is counted in these three counts and in nothing else; figures of nothing are None. ``macro`` is
    the unweighted mean over the data sets that have a score (arXiv 2503.09516, table 2); its counts are sums. ``seed``
    is that of the intervals. Raises ValueError for no rows.
    """
    if not rows:
        raise ValueError("no predictions to summarize")
    names = dict.fromkeys(row["dataset"] for row in rows)
    groups = {name: [row for row in rows if row["dataset"] == name] for name in names}
    datasets = {name: _figures(group, seed) for name, group in groups.items()}
    return {"datasets": datasets, "macro": _macro(datasets, [_matches(group) for group in groups.values()], seed)}


def _figures(group: Sequence[Row], seed: int) -> dict[str, Any]:
    scored = [row for row in group if not row["failed"]]
    matches = _matches(scored)
    figures: dict[str, Any] = {"n": len(matches)}
    figures |= dict.fromkeys(("exact_match", "ci_low", "ci_high"))
    if matches:
        mean, low, high = mean_interval(matches, seed)
        figures |= {"exact_match": mean, "ci_low": low, "ci_high": high}
    figures |= {name: _mean([value for row in scored if (value := row.get(name)) is not None]) for name in _MEANS}
    figures["answer_retrieved"] = _mean([float(row["answer_retrieved"]) for row in scored if _known(row)])
    figures |= _failures(group)
    if any(row.get("sample", 0) for row in group):
        from searchr1.evaluation.repeated import repeated_figures

        figures |= repeated_figures(scored)
    return figures


def _macro(datasets: Mapping[str, dict[str, Any]], matches: Sequence[Sequence[float]], seed: int) -> dict[str, Any]:
    kept = [group for group in matches if group]
    macro: dict[str, Any] = {"n": sum(figures["n"] for figures in datasets.values())}
    macro |= dict.fromkeys(("exact_match", "ci_low", "ci_high"))
    if kept:
        mean, low, high = macro_interval(kept, seed)
        macro |= {"exact_match": mean, "ci_low": low, "ci_high": high}
    for name in (*_MEANS, "answer_retrieved"):
        macro[name] = _mean([figures[name] for figures in datasets.values() if figures[name] is not None])
    for name in ("failed", "search_failures", "engine_errors"):
        macro[name] = sum(figures[name] for figures in datasets.values())
    return macro


def _failures(group: Sequence[Row]) -> dict[str, int]:
    failed = [row for row in group if row["failed"]]
    searches = sum(row.get("stop") == StopReason.SEARCH_UNAVAILABLE for row in failed)
    return {"failed": len(failed), "search_failures": searches, "engine_errors": len(failed) - searches}


def _matches(group: Sequence[Row]) -> list[float]:
    """Exact match of every question that has a score: the mean over its samples."""
    questions: dict[str, list[float]] = {}
    for row in group:
        if not row["failed"]:
            questions.setdefault(row["id"], []).append(float(row["exact_match"]))
    return [fmean(values) for values in questions.values()]


def _known(row: Row) -> bool:
    return row.get("answer_retrieved") is not None


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
