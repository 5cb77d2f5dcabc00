"""The paper's main table in miniature: every baseline and both algorithms on the atlas, three seeds, one leaderboard.

    python benchmarks/main_table.py --out runs/main-table            # about an hour on two cores
    python benchmarks/main_table.py --out runs/main-table --seeds 0  # a third of it

What needs training is trained (Search-R1 with GRPO and PPO, R1 without search, rejection sampling, fine-tuning on gold
answers), each seed a run of its own; everything is then evaluated greedily on the 600 test questions, with one search
engine and one budget. Search budgets of 0 to 4 make the curve. The same command goes on where it was stopped. Then:

    cd runs/main-table/eval
    searchr1 leaderboard direct cot rag ircot search_o1 */seed-* --format markdown
    searchr1 leaderboard ../budget/* --out budget.html
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

PROMPTED = ("direct", "cot", "rag", "ircot", "search_o1")
"""Agents of the untrained policy: greedy, so there is nothing that a seed could change."""
BUDGETS = (0, 1, 2, 3, 4)
ROLLOUTS = ("--questions", "1000", "--rollouts", "5", "--keep", "correct")
"""Rejection sampling: five candidates a prompt, as the paper."""


@dataclass(frozen=True)
class Job:
    """Commands that need each other; ``log`` is where they write."""

    log: Path
    commands: tuple[tuple[str, ...], ...]


def trained(out: Path, seed: int) -> list[Job]:
    """The policies of one seed, and their evaluations."""
    runs, files = out / "runs", out / "files"
    settings = ("--set", f"seed={seed}", "--set", "engine.threads=1")

    def job(name: str, title: str, agent: str, *steps: tuple[str, ...]) -> Job:
        run = str(runs / name / f"seed-{seed}")
        evaluation = evaluate(out / "eval" / name / f"seed-{seed}", run, title, agent)
        return Job(out / "logs" / f"{name}-{seed}.log", (*steps, evaluation))

    def train(recipe: str, name: str) -> tuple[str, ...]:
        return ("train", recipe, *settings, "--out", str(runs / name / f"seed-{seed}"))

    kept = str(files / f"kept-{seed}.jsonl.gz")
    sample = ("sample", "atlas", *ROLLOUTS, *settings, "--out", kept)
    imitate = ("sft", "atlas", "--data", kept, *settings, "--set", "sft.batch=16")
    answers = ("sft", "atlas", "--answers", *settings)
    return [
        job("ppo", "Search-R1 (PPO)", "search_r1", train("atlas-ppo", "ppo")),
        job("grpo", "Search-R1 (GRPO)", "search_r1", train("atlas", "grpo")),
        job("r1", "R1 (no search)", "r1", train("atlas-r1", "r1")),
        job("rs", "Rejection sampling", "search_r1", sample, (*imitate, "--out", str(runs / "rs" / f"seed-{seed}"))),
        job("sft", "SFT (gold answers)", "direct", (*answers, "--out", str(runs / "sft" / f"seed-{seed}"))),
    ]


def evaluate(folder: Path, model: str, title: str, agent: str, *more: str) -> tuple[str, ...]:
    search = () if agent in ("direct", "cot", "r1") else ("--retriever", "bm25")
    return ("eval", model, "--data", "atlas", "--agent", agent, "--name", title, *search,
            "--set", "engine.threads=1", *more, "--out", str(folder))  # fmt: skip


def curve(out: Path, seed: int) -> list[Job]:
    """The GRPO policy of one seed with other search budgets than the one it was trained with."""
    jobs = []
    for budget in BUDGETS:
        folder, run = out / "budget" / str(budget), str(out / "runs" / "grpo" / f"seed-{seed}")
        more = ("--set", f"rollout.max_searches={budget}")
        command = evaluate(folder, run, f"Search-R1 (GRPO), seed {seed}", "search_r1", *more)
        jobs.append(Job(out / "logs" / f"budget-{budget}.log", (command,)))
    return jobs


def play(job: Job) -> str:
    """Run a job's commands; what an earlier call finished is left alone. An empty string, or what failed."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for command in job.commands:
        target = Path(command[command.index("--out") + 1])
        target.parent.mkdir(parents=True, exist_ok=True)
        if command[0] == "eval" and (target / "summary.json").is_file():
            continue
        begun = target.exists() or Path(f"{target}.part").exists()
        again = ["--resume"] if begun else []
        with job.log.open("ab") as log:
            line = [sys.executable, "-m", "searchr1.cli", *command, *again]
            code = subprocess.run(line, stdout=log, stderr=log, env=environment, check=False).returncode
        if code:
            return f"{' '.join(command)}: failed with {code}; see {job.log}"
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/main-table"))
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated")
    parser.add_argument("--jobs", type=int, default=2, help="at work at one time")
    given = parser.parse_args(arguments)
    out, seeds = given.out, [int(seed) for seed in given.seeds.split(",")]
    prompted = [
        Job(out / "logs" / f"{agent}.log", (evaluate(out / "eval" / agent, "atlas-base", NAMES[agent], agent),))
        for agent in PROMPTED
    ]
    stages = [[job for seed in seeds for job in trained(out, seed)] + prompted, curve(out, seeds[0])]
    failures = []
    for jobs in stages:
        with ThreadPoolExecutor(given.jobs) as pool:
            for job, failure in zip(jobs, pool.map(play, jobs), strict=True):
                print(failure or f"{job.log.stem}: done", file=sys.stderr, flush=True)
                failures += [failure] if failure else []
    return 1 if failures else 0


NAMES = {"direct": "Direct", "cot": "CoT", "rag": "RAG", "ircot": "IRCoT", "search_o1": "Search-o1"}

if __name__ == "__main__":
    raise SystemExit(main())
