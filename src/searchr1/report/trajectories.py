"""Which trajectories the page carries, and how they are packed small.

A run may hold millions of them and a page only a few megabytes: the evaluations before and after training, and whole
groups from a few training steps. Questions and groups are drawn by the hash of their name, so the choice is fair, the
same each time, and the same before and after. What is left out is counted and said.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from searchr1.errors import UserError
from searchr1.report.summary import real
from searchr1.run import RunFolder
from searchr1.run_files import Row

MAX_TRAJECTORIES = 200
MAX_BYTES = 3_500_000
EVAL_BYTES = 2_200_000
"""The evaluations may take this much of ``MAX_BYTES``; training groups have the rest."""
MAX_QUESTIONS = 60
GROUPS_A_STEP = 3
TRAINING_STEPS = 5
MAX_GROUP = 16


@dataclass(slots=True)
class Drawn:
    """The ``limit`` groups whose names have the smallest hashes, of all that are offered."""

    limit: int
    groups: dict[str, list[Row]] = field(default_factory=dict)

    def offer(self, name: str, row: Row) -> None:
        if name not in self.groups and len(self.groups) >= self.limit:
            last = max(self.groups, key=_rank)
            if _rank(name) >= _rank(last):
                return
            del self.groups[last]
        self.groups.setdefault(name, []).append(row)


def _rank(name: str) -> tuple[int, str]:
    return zlib.crc32(name.encode(errors="replace")), name


@dataclass(slots=True)
class Packed:
    """The page's form: tokens as numbers into one table of (id, text) pairs, shared by all trajectories."""

    tokens: list[tuple[int, str]] = field(default_factory=list)
    entries: list[Row] = field(default_factory=list)
    shown: int = 0
    size: int = 0
    _index: dict[tuple[int, str], int] = field(default_factory=dict)

    def add(self, kind: str, rows: list[Row], max_bytes: int) -> None:
        """Add one entry (a question's evaluations, or a training group) if it still fits."""
        rows = rows[:MAX_GROUP]
        known, size = len(self.tokens), self.size
        entry = {"kind": kind, "question": _question(rows[0]), "items": [self._item(row) for row in rows]}
        size += len(json.dumps(entry)) + sum(len(json.dumps(token)) for token in self.tokens[known:])
        if size > max_bytes or self.shown + len(rows) > MAX_TRAJECTORIES:
            for token in self.tokens[known:]:
                del self._index[token]
            del self.tokens[known:]
            return
        self.entries.append(entry)
        self.size, self.shown = size, self.shown + len(rows)

    def _item(self, row: Row) -> Row:
        exact = real(row["components"].get("exact_match"))
        return {
            "kind": row["kind"],
            "step": row["step"],
            "answer": row["answer"],
            "stop": row["stop"],
            "correct": None if exact is None else exact > 0,
            "reward": _short(row["reward"]),
            "components": {name: _short(value) for name, value in row["components"].items()},
            "advantage": _short(row["advantage"]),
            "version": row["policy_version"],
            "seed": str(row["seed"]),  # wider than a JavaScript number
            "segments": [self._segment(segment) for segment in row["segments"]],
            "turns": [_turn(turn) for turn in row["turns"]],
        }

    def _segment(self, segment: Row) -> Row:
        pairs = zip(segment["token_ids"], segment["pieces"], strict=True)
        packed: Row = {"source": segment["source"], "tokens": [self._token(pair) for pair in pairs]}
        if "logprobs" in segment:
            packed["logprobs"] = [_short(value) for value in segment["logprobs"]]
        return packed

    def _token(self, pair: tuple[int, str]) -> int:
        if pair not in self._index:
            self._index[pair] = len(self.tokens)
            self.tokens.append(pair)
        return self._index[pair]


def collect_trajectories(run: RunFolder, evaluated: list[int]) -> Row:
    """What the trajectory browser shows: ``{"tokens", "entries", "first", "last", "note"}``.

    ``evaluated`` are the steps of the evaluations; the first and the last with trajectories are shown side by side.
    """
    steps = run.trajectory_steps()
    compared = [step for step in evaluated if step in set(steps)] or steps
    compared = sorted({compared[0], compared[-1]}) if compared else []
    trained = _spread([step for step in steps if step > 0], TRAINING_STEPS)
    asked, groups, seen = Drawn(MAX_QUESTIONS), {step: Drawn(GROUPS_A_STEP) for step in trained}, 0
    for step in sorted({*compared, *trained}):
        for row in run.iter_trajectories(step):
            seen += 1
            name = f"{row.get('group', '')}" or row["question"]["id"]
            if row.get("kind") == "eval" and step in compared:
                asked.offer(f"{row['question']['dataset']}/{row['question']['id']}", row)
            elif row.get("kind") == "train" and step in groups:
                groups[step].offer(name, row)
    newest_first = [rows for step in _outside_in(trained) for rows in groups[step].groups.values()]
    packed = _pack(run, list(asked.groups.values()), newest_first)
    packed.entries.sort(key=lambda entry: (entry["kind"] != "eval", -entry["items"][0]["step"]))
    return {
        "tokens": packed.tokens,
        "entries": packed.entries,
        "first": compared[0] if compared else None,
        "last": compared[-1] if compared else None,
        "shown": packed.shown,
        "note": _note(packed.shown, seen, len({*compared, *trained}), len(steps)),
    }


def _pack(run: RunFolder, evaluations: Iterable[list[Row]], training: Iterable[list[Row]]) -> Packed:
    packed = Packed()
    try:
        for rows in evaluations:
            packed.add("eval", rows, EVAL_BYTES)
        for rows in training:
            packed.add("train", rows, MAX_BYTES)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{run.path / 'trajectories'}: a row is not complete ({error!r}); restore the file") from error
    return packed


def _spread(steps: list[int], count: int) -> list[int]:
    """First, last and evenly between.

    >>> _spread([1, 2, 3, 4, 5, 6, 7, 8, 9], 3)
    [1, 5, 9]
    """
    if len(steps) <= count:
        return steps
    return [steps[round(i * (len(steps) - 1) / (count - 1))] for i in range(count)]


def _outside_in(steps: list[int]) -> list[int]:
    """Newest, oldest, then the rest, newest first: the order in which room is given."""
    return [*steps[-1:], *steps[:1], *reversed(steps[1:-1])] if len(steps) > 1 else steps


def _note(shown: int, seen: int, opened: int, files: int) -> str:
    """One sentence about what is left out; empty when nothing is."""
    if shown == seen and opened == files:
        return ""
    text = f"Showing {shown:,} of the {seen:,} trajectories in {opened:,} of {files:,} step files"
    return f"{text}; questions and groups were drawn by the hash of their names. "


def _question(row: Row) -> Row:
    question = row["question"]
    return {
        "id": question["id"],
        "text": question["question"],
        "answers": question["answers"],
        "dataset": question["dataset"],
        "hops": real(question["metadata"].get("hops")),
    }


def _turn(turn: Row) -> Row:
    return {
        "action": turn["action"],
        "text": turn["text"],
        "search": turn["search"],
        "passages": [{"id": p["id"], "title": p["title"], "score": _short(p["score"])} for p in turn["passages"]],
        "policy_tokens": turn["policy_tokens"],
        "environment_tokens": turn["environment_tokens"],
        "truncated": turn["truncated"],
        "seconds": [_short(turn["generate_seconds"]), _short(turn["search_seconds"])],
    }


def _short(value: object) -> float | None:
    finite = real(value)
    return None if finite is None else round(finite, 3) + 0.0  # + 0.0: no "-0.0"
