"""Evaluation folders as ``searchr1 eval`` writes them, from nothing but who was right."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Right = Sequence[float | Sequence[float | None] | None]
"""One value a question, or one for each of its samples: exact match, or None where it failed."""


def settings(name: str, **changes: Any) -> dict[str, Any]:
    """Settings of an entry; ``changes`` replace or add."""
    return {
        "name": name, "agent": "search_r1", "model": "runs/a", "decoding": "greedy", "samples": 1, "seed": 0,
        "retriever": {"spec": "bm25", "kind": "bm25", "corpus_hash": "c", "passages": 3}, "control": "none",
        "max_searches": 4, "top_k": 3, "questions": {"n": 1, "hash": "h"},
    } | changes  # fmt: skip


def write(
    folder: Path, right: Right | Mapping[str, Right], given: dict[str, Any] | None, *, first: int = 0, **row: Any
) -> Path:
    """``right`` by data set (or of the set nq); questions are numbered from ``first``. Without settings: version 1."""
    folder.mkdir(parents=True)
    sets = right if isinstance(right, Mapping) else {"nq": right}
    lines = []
    for dataset, values in sets.items():
        for number, value in enumerate(values, start=first):
            samples = value if isinstance(value, Sequence) else [value]
            lines += [prediction(dataset, str(number), one, place, **row) for place, one in enumerate(samples)]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    head: dict[str, Any] = {"format": "searchr1-evaluation", "version": 1 if given is None else 2}
    figures: dict[str, Any] = {"datasets": {}, "macro": {}}
    more = {} if given is None else {"settings": given}
    (folder / "summary.json").write_text(json.dumps(head | more | figures))
    return folder


def prediction(dataset: str, name: str, value: float | None, sample: int = 0, **changes: Any) -> dict[str, Any]:
    """One row; without ``sample`` 0 it is as old folders have it."""
    failed = value is None
    return {
        "id": name, "dataset": dataset, "question": f"{dataset} {name}?", "answers": ["yes"],
        **({"sample": sample} if sample else {}),
        "prediction": None if failed else "yes" if value else "no",
        "stop": "search_unavailable" if failed else "answered", "searches": 2, "queries": ["x", "y"],
        "exact_match": value, "cover_match": value, "f1": value, "failed": failed, "seed": 0,
        "policy_tokens": 50, "retrieved_tokens": 300, "prompt_tokens": 400, "seconds": 0.5, "search_seconds": 0.1,
    } | changes  # fmt: skip
