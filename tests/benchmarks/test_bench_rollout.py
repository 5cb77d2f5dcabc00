import asyncio

from searchr1.benchmarks.rollout import Workload, _rollout, bench_rollout, lockstep, random_workload
from searchr1.engines.local import LocalEngine


def small(trajectories: int = 6) -> Workload:
    return random_workload(trajectories, turns=2, limit=12, observation=10)


def test_rows_have_the_promised_shape() -> None:
    rows = bench_rollout(small(), trajectories=(2, 6), rounds=1)
    assert len(rows) == 2 * 2 * 3
    assert {tuple(row) for row in rows} == {("figure", "unit", "ours", "peer", "theirs", "ratio")}
    assert rows[0]["figure"] == "rollout of 2 trajectories, wall time"
    for row in rows:
        assert row["ours"] > 0
        assert abs(row["ratio"] - row["ours"] / row["theirs"]) < 0.01


def test_all_systems_hold_the_same_kind_of_dialogue() -> None:
    work = small(40)
    engine = LocalEngine(work.model, work.tokenizer)
    counts = [asyncio.run(_rollout(engine, work, 0)), lockstep(work, 0, stop=True), lockstep(work, 0, stop=False)]
    # 80 turns end with probability 1/16 a token, or at 12 tokens: 8.6 on average, standard error 0.46.
    assert all(80 * 7 < count < 80 * 10.2 for count in counts)
    assert counts[1] == counts[2]
