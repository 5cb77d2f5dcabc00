"""Multi-turn rollouts: the local engine beside transformers' own ``generate`` in lock-step.

Both serve the same dialogues with the same model in the same process: a turn is sampled up to a stop string or a limit,
the environment appends an observation, and so on. The peer is run in two ways. *Stopping*: each row stops at the tag,
every turn waits for the slowest row and starts by prefilling the whole left-padded batch again. *Cutting*: as the
first Search-R1 (arXiv 2503.09516) does it, every row is sampled up to the turn's limit and what follows the tag is
thrown away.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from searchr1.engines.local import LocalEngine
from searchr1.engines.stops import StopRule
from searchr1.ports import Tokenizer
from searchr1.types import Answer, Sampling, Search

Observe = Callable[[int, int, Sequence[int]], Awaitable["list[int] | None"]]


@dataclass(frozen=True, slots=True)
class Workload:
    """Dialogues to be had with a model."""

    model: Any
    tokenizer: Tokenizer
    prompts: list[list[int]]
    observe: Observe
    """(trajectory, turn, sampled ids) -> the observation's ids, or None when the trajectory is over."""
    stops: tuple[str, ...]
    turns: int = 3
    limit: int = 128
    """Tokens a turn may have."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one rollout took; ``tokens`` counts sampled ones up to each turn's stop."""

    wall: float
    cpu: float
    tokens: int


def bench_rollout(
    workload: Workload | None = None,
    *,
    trajectories: Sequence[int] = (64, 192),
    rounds: int = 3,
    cutting: bool = True,
) -> list[dict[str, Any]]:
    """Trajectories per second, ours beside theirs, medians of interleaved rounds.

    Without a ``workload`` the shipped policy answers atlas questions; a given one is run with as many of its prompts as
    each of ``trajectories`` asks for.
    Rows have the keys figure, unit, ours, peer, theirs, ratio; a ratio above 1 means ours is faster.
    """
    whole = workload or atlas_workload(max(trajectories))
    rows: list[dict[str, Any]] = []
    for count in trajectories:
        part = replace(whole, prompts=whole.prompts[:count])
        longest = part.limit * part.turns + 8 * max(map(len, part.prompts)) + 1024
        engine = LocalEngine(part.model, part.tokenizer, slots=count, max_length=longest)
        systems: dict[str, Callable[[int], int]] = {
            "ours": lambda seed, part=part, engine=engine: asyncio.run(_rollout(engine, part, seed)),  # type: ignore[misc]
            "transformers generate, stopping at the tags": lambda seed, part=part: lockstep(part, seed, stop=True),  # type: ignore[misc]
        }
        if cutting:
            systems["transformers generate, cutting at the tags"] = lambda seed, part=part: lockstep(  # type: ignore[misc]
                part, seed, stop=False
            )
        costs = _interleaved(systems, rounds)
        for peer in list(systems)[1:]:
            rows += _rows(len(part.prompts), costs["ours"], peer, costs[peer], part.model.device.type == "cpu")
    return rows


def _interleaved(systems: dict[str, Callable[[int], int]], rounds: int) -> dict[str, list[Cost]]:
    costs: dict[str, list[Cost]] = {name: [] for name in systems}
    for seed in range(rounds):
        for name, run in systems.items():
            wall, cpu = time.perf_counter(), time.process_time()
            tokens = run(seed)
            costs[name].append(Cost(time.perf_counter() - wall, time.process_time() - cpu, tokens))
    return costs


def _rows(count: int, ours: list[Cost], peer: str, theirs: list[Cost], on_cpu: bool) -> list[dict[str, Any]]:
    def row(what: str, unit: str, value: Callable[[Cost], float]) -> dict[str, Any]:
        left, right = (statistics.median(map(value, costs)) for costs in (ours, theirs))
        return {
            "figure": f"rollout of {count} trajectories, {what}",
            "unit": unit,
            "ours": round(left, 3),
            "peer": peer,
            "theirs": round(right, 3),
            "ratio": round(left / right, 3),
        }

    rows = [
        row("wall time", "trajectories/s", lambda cost: count / cost.wall),
        row("sampled tokens", "tokens/s", lambda cost: cost.tokens / cost.wall),
    ]
    if on_cpu:
        rows.insert(1, row("processor time", "trajectories/s", lambda cost: count / cost.cpu))
    return rows


async def _rollout(engine: LocalEngine, work: Workload, seed: int) -> int:
    async def dialogue(index: int) -> int:
        tokens, context = 0, work.prompts[index]
        with engine.session() as session:
            for turn in range(work.turns):
                sampling = Sampling(work.limit, stop=work.stops, seed=hash((seed, index, turn)))
                completion = await engine.generate(context, sampling, session=session)
                tokens += len(completion.token_ids)
                observation = await work.observe(index, turn, completion.token_ids)
                if observation is None:
                    break
                context = [*context, *completion.token_ids, *observation]
        return tokens

    return sum(await asyncio.gather(*map(dialogue, range(len(work.prompts)))))


def lockstep(work: Workload, seed: int, *, stop: bool) -> int:
    """The rollout with ``model.generate``, all trajectories at the same turn; sampled tokens up to the stops."""
    torch.manual_seed(seed)
    model = work.model.eval()
    contexts = dict(enumerate(work.prompts))
    tokens = 0
    for turn in range(work.turns):
        width = max(map(len, contexts.values()))
        padded = [[0] * (width - len(ids)) + ids for ids in contexts.values()]
        attended = [[0] * (width - len(ids)) + [1] * len(ids) for ids in contexts.values()]
        with torch.inference_mode():
            output = model.generate(
                torch.tensor(padded, device=model.device),
                attention_mask=torch.tensor(attended, device=model.device),
                max_new_tokens=work.limit,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                pad_token_id=0,
                eos_token_id=list(work.tokenizer.eos_ids) or None,
                stopping_criteria=[_Stopping(work, width)] if stop else None,
            )
        rule = StopRule(work.stops, work.tokenizer)
        sampled = [_cut(row, rule, work.tokenizer.eos_ids) for row in output[:, width:].tolist()]
        tokens += sum(map(len, sampled))
        observed = asyncio.run(_observe(work, turn, list(contexts), sampled))
        rows = zip(contexts.items(), sampled, observed, strict=True)
        contexts = {index: [*ids, *said, *seen] for (index, ids), said, seen in rows if seen is not None}
        if not contexts:
            break
    return tokens


async def _observe(work: Workload, turn: int, indices: list[int], sampled: list[list[int]]) -> list[list[int] | None]:
    """The environment's replies to one turn of all trajectories, one batch of searches."""
    return await asyncio.gather(*(work.observe(i, turn, ids) for i, ids in zip(indices, sampled, strict=True)))


class _Stopping:
    """Rows are done once a stop string is complete: the engine's own rule, so that both pay the same for it."""

    def __init__(self, work: Workload, width: int) -> None:
        self._rule = StopRule(work.stops, work.tokenizer)
        self._width = width
        self._done: list[bool] = []

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        rows = input_ids[:, self._width :].tolist()
        self._done = self._done or [False] * len(rows)
        self._done = [done or self._rule.completed(row) for done, row in zip(self._done, rows, strict=True)]
        return torch.tensor(self._done, device=input_ids.device)


def _cut(row: list[int], rule: StopRule, eos_ids: Sequence[int]) -> list[int]:
    for end in range(1, len(row) + 1):
        if row[end - 1] in eos_ids or rule.completed(row[:end]):
            return row[:end]
    return row


def atlas_workload(trajectories: int, *, limit: int = 48) -> Workload:
    """The shipped policy, untrained, on questions about the atlas, with a real index: the demo's rollout.

    A turn has about 9 tokens. ``limit`` is five times that, as the 500 tokens of arXiv 2503.09516 are of its turns.
    """
    from searchr1.assemble import build_parts
    from searchr1.config import load_recipe

    recipe = load_recipe("atlas")
    with tempfile.TemporaryDirectory() as folder:
        parts = build_parts(recipe, Path(folder), lambda line: None)
    questions = [parts.train[i % len(parts.train)] for i in range(trajectories)]

    async def observe(index: int, turn: int, sampled: Sequence[int]) -> list[int] | None:
        action = parts.protocol.parse(parts.tokenizer.decode(sampled))
        if isinstance(action, Answer) or turn == recipe.rollout.max_searches:
            return None
        if not isinstance(action, Search):
            return list(parts.protocol.invalid().token_ids)
        [passages] = await parts.retriever.search([action.query], recipe.rollout.top_k)
        return list(parts.protocol.observe(passages, recipe.rollout.observation_tokens).token_ids)

    return Workload(
        model=parts.policy.model,
        tokenizer=parts.tokenizer,
        prompts=[parts.protocol.prompt(question.text) for question in questions],
        observe=observe,
        stops=parts.protocol.stops,
        turns=recipe.rollout.max_searches + 1,
        limit=limit,
    )
