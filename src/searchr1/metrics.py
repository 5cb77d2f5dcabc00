"""Rows of the run folder from scored trajectories."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from searchr1.evaluation.bootstrap import mean_interval
from searchr1.types import Invalid, Scored, Source, StopReason


def step_metrics(scored: Sequence[Scored], learned: Mapping[str, float]) -> dict[str, float]:
    """One training step's metrics, with those of what was ``learned``; means are over what did not fail."""
    trajectories = [item.trajectory for item in scored]
    kept = [item for item in scored if not item.trajectory.failed]
    row: dict[str, float] = {"train/trajectories": len(scored)}
    if kept:
        row["train/reward"] = fmean(item.reward for item in kept)
        row |= {f"train/{name}": fmean(item.components[name] for item in kept) for name in kept[0].components}
        played = [item.trajectory for item in kept]
        row["train/searches"] = fmean(trajectory.searches for trajectory in played)
        turns = [turn for trajectory in played for turn in trajectory.turns]
        row["train/valid_actions"] = fmean(not isinstance(turn.action, Invalid) for turn in turns) if turns else 0.0
        row["train/cut_turns"] = fmean(turn.cut for turn in turns) if turns else 0.0
        observed = [turn.truncated for trajectory in played for turn in trajectory.turns if turn.environment_tokens]
        row["train/truncated_observations"] = fmean(observed) if observed else 0.0
        row |= _by_kind("searches", kept, lambda item: float(item.trajectory.searches))
        row |= _by_kind("exact_match", kept, lambda item: item.components["exact_match"])
        for source in (Source.POLICY, Source.ENVIRONMENT):
            row[f"tokens/{source}"] = fmean(trajectory.count(source) for trajectory in played)
    for stop in StopReason:
        row[f"stop/{stop}"] = sum(trajectory.stop is stop for trajectory in trajectories) / len(scored)
    return {**row, **learned}


def search_metrics(counted: Mapping[str, float]) -> dict[str, float]:
    """What the search engine counted up to one step, under ``search/``, and the share that the cache answered.

    >>> search_metrics({"cache_hits": 3, "cache_misses": 1})
    {'search/cache_hits': 3, 'search/cache_misses': 1, 'search/cache_hit_rate': 0.75}
    """
    row = {f"search/{name}": value for name, value in counted.items()}
    asked = counted.get("cache_hits", 0) + counted.get("cache_misses", 0)
    return row | ({"search/cache_hit_rate": counted["cache_hits"] / asked} if asked else {})


def _by_kind(name: str, scored: Sequence[Scored], value: Callable[[Scored], float]) -> dict[str, float]:
    """Means by the number of hops of the question, comparison questions apart."""
    groups: dict[str, list[float]] = {}
    for item in scored:
        question = item.trajectory.question
        kind = "comparison" if question.metadata.get("form") == "comparison" else f"hops-{question.hops}"
        groups.setdefault(kind, []).append(value(item))
    return {f"{name}/{kind}": fmean(values) for kind, values in sorted(groups.items()) if kind != "hops-None"}


def evaluation_rows(scored: Sequence[Scored], *, step: int, agent: str, decoding: str) -> list[dict[str, Any]]:
    """Rows of ``eval.jsonl``: one a dataset, and one for ``all`` questions when there are several datasets."""
    names = list(dict.fromkeys(item.trajectory.question.dataset for item in scored))
    groups = {name: [item for item in scored if item.trajectory.question.dataset == name] for name in names}
    if len(groups) > 1:
        groups["all"] = list(scored)
    rows = []
    for name, group in groups.items():
        kept = [item for item in group if not item.trajectory.failed]
        row: dict[str, Any] = {"step": step, "agent": agent, "decoding": decoding, "dataset": name, "n": len(kept)}
        if kept:
            mean, low, high = mean_interval([item.components["exact_match"] for item in kept])
            row |= {"exact_match": mean, "ci_low": low, "ci_high": high}
            row["f1"] = fmean(item.components["f1"] for item in kept)
            row["searches"] = fmean(item.trajectory.searches for item in kept)
        rows.append({**row, "failed": len(group) - len(kept)})
    return rows
