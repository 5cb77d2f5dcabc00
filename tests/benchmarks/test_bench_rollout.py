import asyncio
import random
from collections.abc import Sequence
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from searchr1.benchmarks.rollout import Workload, _rollout, bench_rollout, lockstep
from searchr1.engines.local import LocalEngine


class _Tags:
    """The tokenizer of the random workload: one id in ``every`` closes a tag, the others are words."""

    eos_ids: tuple[int, ...] = ()

    def __init__(self, every: int) -> None:
        self._every = every

    def encode(self, text: str) -> list[int]:
        raise NotImplementedError("the random workload has no text")

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(" word" if i % self._every else "</search>" for i in token_ids)

    def chat(self, text: str) -> list[int] | None:
        return None


def random_workload(trajectories: int, *, turns: int = 3, limit: int = 128, observation: int = 50) -> Workload:
    """A random model of the Qwen2 architecture (4 layers, width 128), prompts and observations of random words."""
    config = Qwen2Config(
        vocab_size=2600,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    model: Any = Qwen2ForCausalLM(config)

    def words(seed: int, size: int) -> list[int]:
        generator = random.Random(seed)
        return [generator.randrange(config.vocab_size) for _ in range(generator.randint(size * 4 // 5, size * 6 // 5))]

    async def observe(index: int, turn: int, sampled: Sequence[int]) -> list[int] | None:
        return words(1000 * index + turn, observation) if turn + 1 < turns else None

    return Workload(
        model=model,
        tokenizer=_Tags(16),
        prompts=[words(-1 - index, observation) for index in range(trajectories)],
        observe=observe,
        stops=("</search>", "</answer>"),
        turns=turns,
        limit=limit,
    )


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
