"""The words and numbers at the top of the page: facts, headline, the evaluation table, alarms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from searchr1.run import RunFolder
from searchr1.run_files import Row
from searchr1.types import FAILURES

AGENTS = {"search_r1": "Search-R1", "rag": "RAG", "direct": "Direct answer"}
"""Order and names; an agent that is not listed follows under its own name."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """One evaluated number, a fraction, with its 95% interval where the evaluation gave one."""

    step: int
    value: float
    low: float | None
    high: float | None
    f1: float | None
    searches: float | None
    n: int | None


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the evaluation table: the first and the last evaluation of the same thing."""

    agent: str
    decoding: str
    dataset: str
    first: Estimate
    last: Estimate

    @property
    def name(self) -> str:
        return AGENTS.get(self.agent, self.agent)

    @property
    def change(self) -> float | None:
        return None if self.first.step == self.last.step else self.last.value - self.first.value


@dataclass(frozen=True, slots=True)
class Headline:
    """What the cards show."""

    decoding: str
    main: Line
    other: Line | None
    """The same with the other decoding."""
    datasets: list[Line]
    rivals: list[Line]
    """The trained agent, then its baselines: with the same decoding where there is one."""
    curve: list[Row]
    """Every evaluation of the main line, for the chart."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The head of the page."""

    name: str
    state: str
    finished: bool
    items: list[tuple[str, str]]


def facts(run: RunFolder, metrics: list[Row]) -> Facts:
    """Name, state and the few settings that everybody asks for."""
    config = run.config
    done = metrics[-1]["step"] if metrics else 0
    planned = config.get("steps")
    steps = f"{done:,} of {planned:,}" if isinstance(planned, int) else f"{done:,}"
    finished = isinstance(planned, int) and done >= planned
    seconds = [value for row in metrics if (value := real(row.get("time/step"))) is not None]
    items = [
        ("Model", setting(config, "model.name", "model.path", "model.preset", "model")),
        ("Algorithm", setting(config, "algorithm.name", "algorithm")),
        ("Retriever", setting(config, "retriever.kind", "retriever.spec", "retriever.path", "retriever")),
        ("Questions", setting(config, "data.train")),
        ("Steps", steps),
        ("Training time", duration(sum(seconds)) if seconds else None),
        ("Seed", setting(config, "seed")),
        *search_traffic(metrics),
    ]
    state = "finished" if finished else ("in progress" if metrics else "not trained yet")
    return Facts(run.path.resolve().name, state, finished, [(name, value) for name, value in items if value])


def search_traffic(metrics: list[Row]) -> list[tuple[str, str | None]]:
    """What the search engine cost in training, as far as it was counted.

    >>> search_traffic([{"search/requests": 9, "search/retries": 2, "search/cache_hits": 3, "search/cache_misses": 9}])
    [('Search requests', '9 (2 tried again)'), ('Searches from the cache', '25.0%')]
    """

    def total(name: str) -> float:
        return sum(real(row.get(f"search/{name}")) or 0.0 for row in metrics)

    requests, retries, asked = total("requests"), total("retries"), total("cache_hits") + total("cache_misses")
    items: list[tuple[str, str | None]] = []
    if requests:
        items.append(("Search requests", f"{requests:,.0f}" + (f" ({retries:,.0f} tried again)" if retries else "")))
    if asked:
        items.append(("Searches from the cache", percent(total("cache_hits") / asked)))
    for name, key in (("Spent on searching", "cost"), ("Saved by the cache", "saved")):
        if total(key):
            items.append((name, f"{total(key):,.2f}"))
    return items


def setting(config: Mapping[str, Any], *dotted: str) -> str | None:
    """The first of the dotted keys that holds something printable.

    >>> setting({"model": {"path": "Qwen"}}, "model.name", "model.path", "model")
    'Qwen'
    """
    for key in dotted:
        value: Any = config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if isinstance(value, str | int | float) and value != "":
            return str(value)
        if isinstance(value, list) and value:
            return ", ".join(map(str, value))
    return None


def table(evaluations: list[Row]) -> list[Line]:
    """First and last evaluation of every (agent, decoding, dataset), in reading order."""
    grouped: dict[tuple[str, str, str], list[Row]] = {}
    for row in evaluations:
        if real(row.get("exact_match")) is not None:
            key = (str(row.get("agent", "?")), str(row.get("decoding", "?")), str(row.get("dataset", "?")))
            grouped.setdefault(key, []).append(row)
    lines = []
    for (agent, decoding, dataset), rows in grouped.items():
        ordered = sorted(rows, key=lambda row: int(row["step"]))
        lines.append(Line(agent, decoding, dataset, _estimate(ordered[0]), _estimate(ordered[-1])))
    rank = [*AGENTS]
    return sorted(  # stable: datasets stay in the order in which they were evaluated
        lines,
        key=lambda line: (
            rank.index(line.agent) if line.agent in rank else len(rank),
            line.agent,
            line.decoding != "sampled",
            line.dataset != "all",
        ),
    )


def headline(evaluations: list[Row]) -> Headline | None:
    """What the cards say; None before the first evaluation of the trained agent."""
    lines = table(evaluations)
    ours = [line for line in lines if line.agent == "search_r1"]
    if not ours:
        return None
    main = ours[0]  # sampled before greedy, the whole set before its parts
    other = [line for line in ours if line.decoding != main.decoding and line.dataset == main.dataset]
    parts = [line for line in ours if line.decoding == main.decoding and line.dataset != "all"]
    baselines = [line for line in lines if line.agent != "search_r1" and line.dataset == main.dataset]
    best = {line.agent: line for line in sorted(baselines, key=lambda line: line.decoding == main.decoding)}
    shown = [line for line in baselines if line is best[line.agent]]
    alike = [line for line in [*other, main] if shown and line.decoding == shown[0].decoding] or [main]
    curve = [
        {"step": row["step"], "value": row["exact_match"], "low": row.get("ci_low"), "high": row.get("ci_high")}
        for row in sorted(evaluations, key=lambda row: int(row["step"]))
        if (row.get("agent"), row.get("decoding"), row.get("dataset")) == (main.agent, main.decoding, main.dataset)
    ]
    return Headline(main.decoding, main, other[0] if other else None, parts, [alike[0], *shown] if shown else [], curve)


def alarms(metrics: list[Row]) -> list[str]:
    """Sentences about what should not happen: searches or engines that failed, cut observations."""
    sentences = []
    for reason in sorted(FAILURES):
        values = [real(row.get(f"stop/{reason}")) or 0.0 for row in metrics]
        if values and max(values) > 0:
            sentences.append(
                f"{percent(sum(values) / len(values))} of all training trajectories ended as {reason} "
                f"(up to {percent(max(values))} in one step). They are left out of loss and score."
            )
    return sentences


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """``{"a": {"b": 1}}`` -> ``("a.b", "1")``."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flat(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, str(value)


def real(value: Any) -> float | None:
    """``value`` if it is a finite number.

    >>> real(1), real(None), real(True), real(float("nan"))
    (1.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def percent(value: float | None) -> str:
    """
    >>> percent(0.7188), percent(None)
    ('71.9%', '–')
    """
    return "–" if value is None else f"{100 * value:.1f}%"


def number(value: float | None) -> str:
    """
    >>> number(1.984), number(None)
    ('1.98', '–')
    """
    return "–" if value is None else f"{value:.2f}"


def duration(seconds: float) -> str:
    """
    >>> duration(41), duration(372), duration(93784)
    ('41 s', '6 min 12 s', '26 h 3 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _estimate(row: Row) -> Estimate:
    n = real(row.get("n"))
    return Estimate(
        step=int(row["step"]),
        value=float(row["exact_match"]),
        low=real(row.get("ci_low")),
        high=real(row.get("ci_high")),
        f1=real(row.get("f1")),
        searches=real(row.get("searches")),
        n=None if n is None else int(n),
    )
