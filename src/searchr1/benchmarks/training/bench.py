"""One optimiser step beside the usual way to make it, and beside TRL: tokens a second, peak memory, utilisation.

Everybody gets the same samples and computes the same loss and gradient (a test compares them). A measurement is one
process; rounds of all systems alternate.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from searchr1.benchmarks.retrieval.base import Row, load_average, row
from searchr1.benchmarks.training.systems import NAMES, PEERS, Variant, missing
from searchr1.benchmarks.training.work import MODELS, Work, build_model, make_work, needed_flops
from searchr1.benchmarks.training.worker import measure
from searchr1.errors import UserError, nearest

VARIANTS = {
    "float32": Variant("float32"),
    "bfloat16": Variant("bfloat16"),
    "float32-checkpointed": Variant("float32", checkpointing=True),
    "bfloat16-checkpointed": Variant("bfloat16", checkpointing=True),
}
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure, beside whom."""

    models: Sequence[str] = ("atlas", "small")
    variants: Sequence[str] = ("float32", "bfloat16")
    peers: Sequence[str] = PEERS
    rounds: int = 3
    repeats: int = 1
    """Timed updates in each process of a round."""
    samples: int | None = None
    """Trajectories in an update; None: those that belong to the model."""
    device: str = "cpu"
    threads: int = 1
    say: Callable[[str], None] = print


def bench_training(options: Options) -> list[Row]:
    """Rows with figure, unit, ours, peer, theirs, ratio; a ratio above 1 means that ours is better.

    Raises ``UserError`` for an unknown model, variant or peer, ``SearchR1Error`` when a measured process fails.
    """
    _check(options)
    peers = [peer for peer in options.peers if not _absent(peer, options)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            work = make_work(name, options.samples)
            file = Path(folder) / f"{name}.json"
            work.save(file)
            flops = needed_flops(work, build_model(name))
            options.say(f"{name}: {len(work.samples)} samples, {work.tokens} tokens, {work.trained} of them trained")
            for variant in options.variants:
                rows += _figures(work, file, flops, VARIANTS[variant], peers, options)
    return rows


def _check(options: Options) -> None:
    for option, given, known in (
        ("--model", options.models, MODELS),
        ("--variant", options.variants, VARIANTS),
        ("--peer", options.peers, PEERS),
    ):
        for name in given:
            if name not in known:
                raise UserError(f"{option}: there is no {option[2:]} {name!r}{nearest(name, known)}")
    for option, value in (("--rounds", options.rounds), ("--threads", options.threads), ("--samples", options.samples)):
        if value is not None and value < 1:
            raise UserError(f"{option}: expected at least 1, got {value}")
    if options.device not in DEVICES:
        raise UserError(f"--device: expected one of {', '.join(DEVICES)}, got {options.device!r}")


def _absent(peer: str, options: Options) -> bool:
    reason = missing(peer)
    if reason:
        options.say(reason)
    return reason is not None


@dataclass(frozen=True, slots=True)
class _Measured:
    """Tokens a second in each round, and peaks in MB by kind."""

    speeds: list[float]
    peaks: dict[str, float]


def _figures(
    work: Work, file: Path, flops: float, variant: Variant, peers: Sequence[str], options: Options
) -> list[Row]:
    machine: dict[str, Any] = {"device": options.device, "threads": options.threads, "precision": variant.precision}
    asked = {**machine, "work": str(file), "checkpointing": variant.checkpointing}
    title = f"{work.model}, {variant}"
    measured = {name: _Measured([], measure("memory", system=name, **asked)) for name in ("ours", *peers)}
    ceilings = []
    for number in range(options.rounds):
        ceilings.append(measure("ceiling", **machine)["flops"])
        for name, costs in measured.items():
            cost = measure("speed", system=name, repeats=options.repeats, **asked)
            costs.speeds.append(work.tokens / cost["seconds"])
            options.say(
                f"{title}, round {number + 1}, {name}: {costs.speeds[-1]:,.0f} tokens/s, loss {cost['loss']:.6f}; "
                f"{load_average()}"
            )
    ceiling = statistics.median(ceilings)
    options.say(f"{title}: the matrix product does {ceiling / 1e9:,.0f} GFLOP/s")
    clock = "processor time" if options.device == "cpu" else "wall time"
    share = 100 * flops / work.tokens / ceiling
    rows = []
    for peer in peers:
        pair = (measured["ours"], measured[peer])
        ours, theirs = (statistics.median(costs.speeds) for costs in pair)
        rows.append(row(f"{title}, {clock}", "tokens/s", ours, NAMES[peer], theirs, more=True))
        for kind in pair[0].peaks:
            few, many = (costs.peaks[kind] for costs in pair)
            rows.append(row(f"{title}, peak memory, {kind}", "MB", few, NAMES[peer], many))
        used, wasted = share * ours, share * theirs
        rows.append(row(f"{title}, utilisation", "% of a matrix product", used, NAMES[peer], wasted, more=True))
    return rows
