"""``bench rollout``."""

from __future__ import annotations

from searchr1.commands.options import Json
from searchr1.console import print_json, say, stdout


def rollout(as_json: Json = False) -> None:
    """Multi-turn rollouts with the local engine, and with transformers' generate in lock-step."""
    from searchr1.benchmarks.rollout import bench_rollout
    from searchr1.commands.tables import table

    say("playing 64 and 192 trajectories, three rounds of each system; about two minutes")
    rows = bench_rollout()
    if as_json:
        print_json(rows)
        return
    for peer in dict.fromkeys(row["peer"] for row in rows):
        shown = table(f"Beside {peer}; above 1, ours is faster", "", "unit", "ours", "theirs", "ratio")
        for row in (row for row in rows if row["peer"] == peer):
            numbers = (f"{row[key]:,.1f}" for key in ("ours", "theirs"))
            shown.add_row(row["figure"], row["unit"], *numbers, f"{row['ratio']:.2f}")
        stdout().print(shown)
