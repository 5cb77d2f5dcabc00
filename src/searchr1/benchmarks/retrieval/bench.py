"""Search and its server beside their peers: which figures there are, and all that are wanted in one run.

Processor time is what is compared, since it hardly depends on what else the machine does; every system works in a
process of its own with one thread, and rounds of all systems alternate. Wall times say what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from searchr1.benchmarks.retrieval.base import PEERS, Options, Row, load_average
from searchr1.benchmarks.retrieval.corpora import CORPUS
from searchr1.benchmarks.retrieval.dense import figure_dense
from searchr1.benchmarks.retrieval.growth import figure_growth
from searchr1.benchmarks.retrieval.lexical import Bench, figure_bm25, figure_build
from searchr1.benchmarks.retrieval.serving import figure_burst, figure_server
from searchr1.errors import UserError, nearest

FIGURES: dict[str, Callable[[Bench], list[Row]]] = {
    "build": figure_build,
    "bm25": figure_bm25,
    "dense": figure_dense,
    "server": figure_server,
    "burst": figure_burst,
    "growth": figure_growth,
}
"""In the order in which they are best measured: indexes are built by the first."""
QUICK = ("build", "bm25")


def bench_retrieval(options: Options, figures: Sequence[str] = QUICK) -> list[Row]:
    """The rows of all ``figures``: figure, unit, ours, peer, theirs, ratio; a ratio above 1 means that ours is better.

    Raises UserError for an unknown figure or a size that cannot be had, SearchR1Error when a measured process fails.
    """
    for name in figures:
        if name not in FIGURES:
            raise UserError(f"--figure: there is no figure {name!r}{nearest(name, FIGURES)}")
    for name in options.peers:
        if name not in PEERS:
            raise UserError(f"--peer: there is no peer {name!r}{nearest(name, PEERS)}")
    for option, value in (("--rounds", options.rounds), ("--workers", options.workers)):
        if value < 1:
            raise UserError(f"{option}: expected at least 1, got {value}")
    bench = Bench(options)
    if not bench.library.real:
        options.say(f"no {CORPUS} with question files in {options.data}: the passages are generated")
    options.say(load_average())
    return [row for name, figure in FIGURES.items() if name in figures for row in figure(bench)]
