"""A made-up run with believable numbers: what the report is tested on, and looked at."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from searchr1.run import RunFolder
from searchr1.trajectory_io import trajectory_row
from searchr1.types import (
    Answer,
    Invalid,
    Passage,
    Question,
    Scored,
    Search,
    SearchOutcome,
    Segment,
    Source,
    StopReason,
    Trajectory,
    Turn,
)

TOWNS = ["Velmora", "Tarnhelm", "Osterlund", "Quillby", "Marrowgate", "Sennheim", "Aldwick", "Brightwater"]
PEOPLE = ["Ilsa Brandt", "Corin Vale", "Mira Östberg", "Tomas Hale", "Ana Duarte", "Wen Zhao", "Ravi Nair", "Una Kerr"]
LANDS = ["Norrland", "Calder", "Isidora", "Vostra", "Temeria", "Lyonesse", "Arden", "Sarkand"]
PROMPT = (
    "Answer the question. Think inside <think> and </think>. Search with <search> query </search>; the results "
    "return between <information> and </information>. Give the answer as <answer> answer </answer>.\nQuestion: "
)


class WordTokenizer:
    """Words, spaces and signs as they come; ids in the order of first use."""

    eos_ids = (0,)

    def __init__(self) -> None:
        self.words = ["<eos>"]
        self.ids = {"<eos>": 0}

    def encode(self, text: str) -> list[int]:
        pieces = re.findall(r"</?|>| ?\w{1,6}|\s|.", text, re.DOTALL)
        for piece in pieces:
            if piece not in self.ids:
                self.ids[piece] = len(self.words)
                self.words.append(piece)
        return [self.ids[piece] for piece in pieces]

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(self.words[token] for token in token_ids)

    def chat(self, text: str) -> list[int] | None:
        return None


def question(index: int) -> Question:
    """Question ``index``: one-hop, two-hop and comparison in turn."""
    town, person, land = TOWNS[index % 8], PEOPLE[index % 8], LANDS[(index * 3) % 8]
    other = TOWNS[(index + 3) % 8]
    kind = ("one-hop", "two-hop", "comparison")[index % 3]
    text, answer = {
        "one-hop": (f"Who founded the town of {town}?", person),
        "two-hop": (f"In which country was the founder of {town} born?", land),
        "comparison": (f"Which town is older, {town} or {other}?", town),
    }[kind]
    return Question(f"test-{index}", text, (answer, answer.upper()), kind, {"hops": 1 if kind == "one-hop" else 2})


class Player:
    """Plays trajectories with a given skill: a stand-in for policy and environment."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.tokenizer = WordTokenizer()

    def play(self, asked: Question, skill: float, version: int) -> Scored:
        draw = self.random
        index = int(asked.id.split("-")[1])
        segments = [Segment(Source.PROMPT, tuple(self.tokenizer.encode(PROMPT + asked.text + "\n")))]
        turns: list[Turn] = []
        wanted = 1 if asked.dataset == "one-hop" else 2
        searches = sum(draw.random() < 0.25 + 0.75 * skill for _ in range(wanted))
        for hop in range(searches):
            segments += self._search(turns, index, hop, asked, skill)
        sure = searches == wanted and draw.random() < 0.15 + 0.82 * skill
        roll = draw.random()
        if roll > 0.55 + 0.44 * skill:
            segments.append(self._say("<think> I am not sure what to do here, maybe the the the", skill))
            turns.append(Turn(Invalid("no tag"), policy_tokens=len(segments[-1].token_ids)))
            stop, answer = StopReason.NO_ACTION, None
        else:
            answer = asked.answers[0] if sure else draw.choice(PEOPLE + LANDS)
            thought = f"<think> The passages say that it is {answer}. </think> " if searches else ""
            segments.append(self._say(f"{thought}<answer> {answer} </answer>", skill))
            turns.append(Turn(Answer(answer), policy_tokens=len(segments[-1].token_ids), generate_seconds=0.03))
            stop = StopReason.ANSWERED
        reward = float(answer in asked.answers)
        trajectory = Trajectory(asked, tuple(segments), tuple(turns), answer, stop, version, draw.getrandbits(31))
        return Scored(trajectory, reward, {"exact_match": reward, "format": float(answer is not None)})

    def _search(self, turns: list[Turn], index: int, hop: int, asked: Question, skill: float) -> list[Segment]:
        town, person = TOWNS[(index + 3 * hop) % 8], PEOPLE[index % 8]
        query = town if hop == 0 or asked.dataset == "comparison" else person
        said = self._say(f"<think> I need to look up {query}. </think> <search> {query} </search>", skill)
        passages = (
            Passage(
                f"p{index}", query, f"{query} ({1600 + 7 * index}) was founded by {person} of {LANDS[index % 8]}.", 9.41
            ),
            Passage("p98", f"{query} Railway", f"The line to {query} opened in 1887 and closed in 1954.", 6.2),
            Passage("p99", "List of towns", "Velmora, Tarnhelm, Osterlund, Quillby & <others>.", 3.75),
        )
        shown = "".join(f'Doc {i}(Title: "{p.title}") {p.text}\n' for i, p in enumerate(passages, start=1))
        seen = Segment(Source.ENVIRONMENT, tuple(self.tokenizer.encode(f"\n\n<information>{shown}</information>\n\n")))
        turns.append(
            Turn(
                Search(query),
                passages,
                SearchOutcome.FOUND,
                len(said.token_ids),
                len(seen.token_ids),
                generate_seconds=0.04 + 0.02 * self.random.random(),
                search_seconds=0.003,
            )
        )
        return [said, seen]

    def _say(self, text: str, skill: float) -> Segment:
        ids = self.tokenizer.encode(text)
        spread = 0.05 + 1.3 * (1 - skill)
        return Segment(Source.POLICY, tuple(ids), tuple(-self.random.expovariate(1 / spread) for _ in ids))


def skill_at(step: float, steps: int) -> float:
    return 1 / (1 + math.exp(-9 * (step / steps - 0.4)))


def metrics_row(step: int, steps: int, draw: random.Random) -> dict[str, Any]:
    """One row of metrics.jsonl as training would write it."""
    skill = skill_at(step, steps)

    def noisy(value: float, spread: float) -> float:
        return max(0.0, value + draw.gauss(0, spread))

    lost = (1 - skill) * 0.42
    row: dict[str, Any] = {
        "step": step,
        "train/reward": min(1.0, noisy(0.09 + 0.78 * skill, 0.05)),
        "train/exact_match": min(1.0, noisy(0.07 + 0.78 * skill, 0.05)),
        "train/searches": noisy(0.5 + 1.15 * skill, 0.04),
        "train/kl": noisy(0.012 * skill + 0.002, 0.001),
        "train/entropy": noisy(1.45 - 1.05 * skill, 0.05),
        "train/grad_norm": noisy(0.42 + 0.5 * skill * (1 - skill), 0.08),
        "train/clip_fraction": noisy(0.03 * (1 - skill) + 0.004, 0.004),
        "train/loss": draw.gauss(0, 0.02),
        "train/truncated_observations": noisy(0.01, 0.01),
        "train/zero_variance_groups": min(1.0, noisy(0.2 + 0.5 * skill, 0.05)),
        "train/trajectories": 256,
        "searches/hops-1": noisy(0.35 + 0.63 * skill, 0.04),
        "searches/hops-2": noisy(0.55 + 1.4 * skill, 0.06),
        "searches/comparison": noisy(0.6 + 1.36 * skill, 0.07),
        "tokens/policy": noisy(42 + 34 * skill, 2),
        "tokens/environment": noisy(70 + 140 * skill, 5),
        "time/rollout": noisy(2.1, 0.15),
        "time/search": noisy(0.12, 0.02),
        "time/update": noisy(1.6, 0.1),
        "learning_rate": 3e-4 * min(1, step / 8),
    }
    row["time/step"] = row["time/rollout"] + row["time/update"] + 0.05
    row["stop/no_action"], row["stop/out_of_turns"] = lost * 0.6, lost * 0.3
    row["stop/out_of_tokens"], row["stop/search_unavailable"], row["stop/engine_error"] = lost * 0.1, 0.0, 0.0
    row["stop/answered"] = 1 - lost
    return row


def eval_rows(step: int, skill: float, n: int = 160) -> list[dict[str, Any]]:
    """The rows of one evaluation: trained agent, sampled and greedy, and both baselines."""
    rows = []
    shape = {"one-hop": (0.14, 0.94, 1.0), "two-hop": (0.04, 0.71, 2.0), "comparison": (0.31, 0.87, 2.0)}
    agents = [
        ("search_r1", "sampled", 0.0),
        ("search_r1", "greedy", 0.02),
        ("direct", "greedy", 0.0),
        ("rag", "greedy", 0.0),
    ]
    for agent, decoding, bonus in agents:
        total, searches = 0.0, 0.0
        for name, (low, high, hops) in shape.items():
            value = low + (high - low) * skill + bonus * skill
            value = {"direct": 0.6 * low + 0.04, "rag": low + 0.3 * (high - low) * (1.6 - 0.5 * hops)}.get(agent, value)
            asked = {"direct": 0.0, "rag": 1.0}.get(agent, hops * (0.3 + 0.69 * skill))
            total, searches = total + value, searches + asked
            rows.append(_eval_row(step, agent, decoding, name, n, value, asked))
        rows.append(_eval_row(step, agent, decoding, "all", 3 * n, total / 3, searches / 3))
    return rows


def _eval_row(step: int, agent: str, decoding: str, dataset: str, n: int, value: float, asked: float) -> dict[str, Any]:
    half = 1.96 * math.sqrt(max(value * (1 - value), 0.01) / n)
    return {
        "step": step,
        "agent": agent,
        "decoding": decoding,
        "dataset": dataset,
        "n": n,
        "exact_match": value,
        "ci_low": max(0.0, value - half),
        "ci_high": min(1.0, value + half),
        "f1": min(1.0, value + 0.03),
        "searches": asked,
    }


def config(steps: int) -> dict[str, Any]:
    return {
        "seed": 17,
        "steps": steps,
        "model": "atlas-tiny",
        "data": {"train": "atlas:train", "test": "atlas:test", "corpus": "atlas:corpus"},
        "retriever": "bm25",
        "rollout": {"max_searches": 4, "group_size": 8, "temperature": 1.0, "context": 768},
        "algorithm": {"name": "grpo", "clip_low": 0.2, "clip_high": 0.28, "kl": 0.001},
        "optimizer": {"learning_rate": 3e-4, "warmup_steps": 8},
    }


def make_run(
    path: Path, *, steps: int = 60, done: int | None = None, questions: int = 24, every: int = 10, seed: int = 1
) -> RunFolder:
    """Write a run of ``done`` of ``steps`` steps to ``path`` and open it for reading."""
    done = steps if done is None else done
    draw, player = random.Random(seed), Player(seed)
    with RunFolder.create(path, config(steps)) as run:
        for step in range(done + 1):
            skill = skill_at(step, steps)
            rows: list[dict[str, Any]] = []
            if step:
                run.append_metrics(metrics_row(step, steps, draw))
                if step % every == 0 or step == 1:
                    rows += _training_rows(player, step, skill)
            if step in (0, steps) or step % every == 0:
                for row in eval_rows(step, skill if step else 0.0):
                    run.append_eval(row)
            if step in (0, steps):
                asked = [question(index) for index in range(questions)]
                rows += [_row(player, player.play(q, skill, step), "eval", step, None, q.id) for q in asked]
            if rows:
                run.write_trajectories(step, rows)
    return RunFolder.open(path)


def _training_rows(player: Player, step: int, skill: float) -> list[dict[str, Any]]:
    rows = []
    for index in range(4):
        asked = question(step + index)
        group = [player.play(asked, skill, step - 1) for _ in range(8)]
        mean = sum(s.reward for s in group) / 8
        spread = math.sqrt(sum((s.reward - mean) ** 2 for s in group) / 8)
        for scored in group:
            advantage = (scored.reward - mean) / (spread + 1e-6)
            rows.append(_row(player, scored, "train", step, advantage, f"{step}/{asked.id}"))
    return rows


def _row(player: Player, scored: Scored, kind: str, step: int, advantage: float | None, group: str) -> dict[str, Any]:
    return trajectory_row(scored, kind=kind, step=step, tokenizer=player.tokenizer, advantage=advantage, group=group)
