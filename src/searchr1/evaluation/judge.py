"""A language model as the judge of answers that exact match may wrong: "1,500 m" for "1500 metres".

    judgements.jsonl   a line for every answer: prompt and reply as they were, and the verdict; written as they come
    judge.json         the share of answers that were judged right, with intervals; written last

A judge is a model with errors of its own: the two files say which, what it was asked, and where it and exact match
differ.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import IO, Any, Protocol

from searchr1.data.jsonl import encode, replacing
from searchr1.errors import EngineError, UserError
from searchr1.evaluation.bootstrap import mean_interval
from searchr1.evaluation.folder import locked, read_predictions
from searchr1.evaluation.rows import Key, Row, key_of

FORMAT = {"format": "searchr1-judgements", "version": 1}
JUDGEMENTS, JUDGE = "judgements.jsonl", "judge.json"
IN_A_ROW = 32
"""So many failures one after the other: the judge is down, or wants another request, and going on is no use."""
PROMPT = """You check answers to questions. Below are a question, the accepted answers and the answer that was given. \
The given answer is correct if it means the same as one of the accepted answers, whatever its wording; it is incorrect \
if it means something else, says more than one thing of which only one is accepted, or does not answer.

Question: {question}
Accepted answers: {answers}
Given answer: {prediction}

Reply with one word: correct or incorrect."""
_VERDICT = re.compile(r"\b(in)?correct\b", re.IGNORECASE)
_DENIED = re.compile(r"(\bnot|\bnever|n['\u2019]t)\s+(\w+\s+)?(in)?correct\b", re.IGNORECASE)
_THOUGHT = re.compile(r"^.*</think>|<think>.*$", re.DOTALL)


GREEDY: Mapping[str, Any] = {"temperature": 0.0}


class Said(Protocol):
    """A reply, of which only the text matters."""

    @property
    def text(self) -> str: ...


class Judge(Protocol):
    """Who is asked: a `searchr1.engines.chat_http.ChatServer`."""

    @property
    def model(self) -> str: ...

    async def chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> Said: ...


async def judge(
    folder: str | Path,
    server: Judge,
    *,
    concurrency: int = 16,
    options: Mapping[str, Any] = GREEDY,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Have every answer of a finished evaluation judged; what `judge.json` holds.

        {"judge": "MODEL", "datasets": {NAME: {"n", "correct", "ci_low", "ci_high", "unclear", "failed",
                                               "both", "judge_only", "match_only"}}, "prompt": PROMPT}

    ``correct`` is the share of ``n`` answers with a verdict; a question without an answer is incorrect and not asked
    about. ``unclear`` replies name no verdict, or both; ``failed`` requests got none. ``both`` counts what judge and
    exact match call right, ``judge_only`` and ``match_only`` where they differ. What the same model was asked before
    (in these words) is not asked again. ``options`` are fields of every request. Raises ``EngineError`` after
    `IN_A_ROW` failures one after the other, and
    ``UserError`` for a folder that is no finished evaluation or that another process is writing, and where the server
    refuses the model.
    """
    folder = Path(folder)
    rows = [row for row in read_predictions(folder) if not row["failed"]]
    with locked(folder):
        known = _known(folder / JUDGEMENTS, server.model)
        await _ask_all(folder / JUDGEMENTS, rows, known, server, options, concurrency, progress)
        result = {**FORMAT, "judge": server.model, "prompt": PROMPT, "datasets": _figures(rows, known)}
        with replacing(folder / JUDGE) as out:
            out.write(encode(result, indent=2) + b"\n")
    return result


async def _ask_all(
    path: Path,
    rows: Sequence[Row],
    known: dict[Key, Row],
    server: Judge,
    options: Mapping[str, Any],
    concurrency: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Have judged what is not ``known``; every judgement goes to ``path`` and into ``known`` as it comes."""
    todo = [row for row in rows if key_of(row) not in known or _asked(row) != known[key_of(row)]["prompt"]]
    done, pending, failures = len(rows) - len(todo), iter(todo), 0

    async def work(stream: IO[bytes]) -> None:
        nonlocal done, failures
        for row in pending:  # shared: each worker takes the next answer
            known[key_of(row)] = judged = await _judged(row, server, options)
            stream.write(encode(judged) + b"\n")
            stream.flush()
            done += 1
            if progress is not None:
                progress(done, len(rows))
            failures = failures + 1 if judged["error"] is not None else 0
            if failures == IN_A_ROW:
                raise EngineError(f"{failures} requests in a row failed: {judged['error']}; the same command goes on")

    with path.open("ab") as stream:
        workers = [asyncio.create_task(work(stream)) for _ in range(min(concurrency, len(todo)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)


def verdict(reply: str) -> bool | None:
    """What a reply says; None where it says nothing, both, or not in the words that were asked for ("not correct").

    Thoughts do not count, also where only their end or only their beginning is marked.

    >>> verdict("Correct."), verdict("It is **incorrect**"), verdict("correct or incorrect?"), verdict("hm")
    (True, False, None, None)
    """
    said = _THOUGHT.sub("", reply)
    found = {match[1] is None for match in _VERDICT.finditer(said)}
    return found.pop() if len(found) == 1 and not _DENIED.search(said) else None


async def _judged(row: Row, server: Judge, options: Mapping[str, Any]) -> Row:
    prompt = _asked(row)
    judged = {key: row.get(key, 0) for key in ("dataset", "id", "sample")} | {"judge": server.model, "prompt": prompt}
    if prompt is None:
        return judged | {"reply": None, "correct": False, "error": None}
    try:
        reply = await server.chat([{"role": "user", "content": prompt}], **options)
    except EngineError as error:
        return judged | {"reply": None, "correct": None, "error": str(error)}
    return judged | {"reply": reply.text, "correct": verdict(reply.text), "error": None}


def _asked(row: Row) -> str | None:
    """The prompt; None where there is no answer to ask about."""
    if not (row.get("prediction") or "").strip():
        return None
    return PROMPT.format(
        question=row["question"], answers=" | ".join(row["answers"]), prediction=row["prediction"].strip()
    )


def _known(path: Path, model: str) -> dict[Key, Row]:
    """Judgements of this model on disk, without requests that failed; a line that a kill tore is not one."""
    known: dict[Key, Row] = {}
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    whole = sum(len(line) + 1 for line in lines)
    if path.is_file() and whole < path.stat().st_size:
        os.truncate(path, whole)  # not written anew: a kill in the middle would lose what was judged
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            key = key_of(row)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}:{number}: expected a judgement: {error!r}; remove the line") from error
        if row.get("judge") == model and row.get("error") is None:
            known[key] = row
    return known


def _figures(rows: Sequence[Row], known: Mapping[Key, Row]) -> dict[str, Any]:
    datasets: dict[str, Any] = {}
    for name in dict.fromkeys(row["dataset"] for row in rows):
        mine = [(row, known[key_of(row)]) for row in rows if row["dataset"] == name]
        ruled = [(bool(row["exact_match"]), found["correct"]) for row, found in mine if found["correct"] is not None]
        value, low, high = _interval(mine)
        datasets[name] = {
            "n": len(ruled),
            "correct": value,
            "ci_low": low,
            "ci_high": high,
            "unclear": sum(found["correct"] is None and found["error"] is None for _, found in mine),
            "failed": sum(found["error"] is not None for _, found in mine),
            "both": sum(match and right for match, right in ruled),
            "judge_only": sum(right and not match for match, right in ruled),
            "match_only": sum(match and not right for match, right in ruled),
        }
    return datasets


def _interval(mine: Sequence[tuple[Row, Row]]) -> tuple[float | None, float | None, float | None]:
    """Over questions: each counts with the mean of its samples."""
    questions: dict[str, list[float]] = {}
    for row, found in mine:
        if found["correct"] is not None:
            questions.setdefault(row["id"], []).append(float(found["correct"]))
    if not questions:
        return None, None, None
    return mean_interval([fmean(values) for values in questions.values()])
