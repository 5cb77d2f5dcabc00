"""The whole loop in one process: it learns, on several model families and switches, and survives its search engine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

import searchr1.waiting
from searchr1.assemble import Parts, build_parts, model_path
from searchr1.config import load_recipe
from searchr1.errors import SearchUnavailable
from searchr1.ports import Retriever, RetrieverInfo
from searchr1.run import RunFolder
from searchr1.tokenization import HFTokenizer
from searchr1.train import Trainer
from searchr1.types import Passage
from searchr1.waiting import Silent

CHAT = (
    "{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SMALL = [
    "steps=2",
    "data.atlas_entities=300",
    "rollout.questions=3",
    "rollout.group_size=4",
    "evaluation.every=0",
    "evaluation.final_questions=6",
    "engine.threads=1",
    "algorithm.drop_zero_variance=false",
]


async def play(run: Path, *overrides: str, change: Any = None, monitor: Any = None) -> tuple[RunFolder, Parts]:
    recipe = load_recipe("atlas", [*SMALL, *overrides])
    folder = RunFolder.create(run, recipe.resolved())
    parts = build_parts(recipe, run)
    if change is not None:
        parts = change(parts)
    with folder:
        await Trainer(recipe, parts, folder, monitor or Silent()).train()
    return RunFolder.open(run), parts


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random chat model of another architecture, with a chat template of its own."""
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = HFTokenizer(model_path("atlas-base")).backend
    tokenizer.chat_template = CHAT
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }
    torch.manual_seed(0)
    model: Any = (
        LlamaForCausalLM(LlamaConfig(**shape))
        if request.param == "llama"
        else Qwen3ForCausalLM(Qwen3Config(**shape, head_dim=8))
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


async def test_other_families_and_chat_templates(family: Path, tmp_path: Path) -> None:
    run, parts = await play(tmp_path / "run", f"model={family}", "protocol.chat=always", "algorithm.kl=k3")
    prompt = parts.tokenizer.decode(parts.protocol.prompt("Who?"))
    assert prompt == "<|user|>Question: Who?\n<|assistant|>"
    assert [row["step"] for row in run.read_metrics()] == [1, 2]
    assert all(math.isfinite(row["train/loss"]) for row in run.read_metrics())
    AutoModelForCausalLM.from_pretrained(run.checkpoints / "step-2")


SWITCHES = {
    "unmasked": ["training.mask_environment=false"],
    "two updates": ["training.updates_per_batch=2"],
    "reinforce": ['algorithm={name="reinforce", baseline="batch_mean"}'],
    "other rewards": ["reward.exact_match=0", "reward.economy.cost=0.1", "reward.format=0.2"],
}


@pytest.mark.parametrize("switch", SWITCHES)
async def test_switches(switch: str, tmp_path: Path) -> None:
    run, _ = await play(tmp_path / "run", "rollout.questions=8", *SWITCHES[switch])
    rows = run.read_metrics()
    assert len(rows) == 2
    assert any(row["train/grad_norm"] > 0 for row in rows)


async def test_search_switched_off(tmp_path: Path) -> None:
    run, _ = await play(tmp_path / "run", "rollout.max_searches=0")
    assert [row["train/searches"] for row in run.read_metrics()] == [0, 0]
    assert all(row["tokens/environment"] == 0 for row in run.read_metrics())


class Flaky:
    """A search engine that is down for a number of calls."""

    def __init__(self, inner: Retriever, down: range) -> None:
        self.inner, self.down, self.calls = inner, down, 0

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        self.calls += 1
        if self.calls in self.down:
            raise SearchUnavailable("down for the test")
        return await self.inner.search(queries, k)

    async def info(self) -> RetrieverInfo:
        return await self.inner.info()


async def test_training_waits_for_a_dead_search_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searchr1.waiting, "RETRY_SECONDS", 0.01)
    reasons: list[str] = []

    class Watch(Silent):
        def paused(self, reason: str) -> None:
            reasons.append(reason)

    flaky: list[Flaky] = []

    def change(parts: Parts) -> Parts:
        flaky.append(Flaky(parts.retriever, range(0)))
        return replace(parts, retriever=flaky[0])

    class Break(Watch):
        """Takes the search engine down when the first step begins."""

        def phase(self, name: str, total: int) -> None:
            if name == "rollout" and not flaky[0].down:
                flaky[0].down = range(flaky[0].calls + 1, flaky[0].calls + 60)

    run, _ = await play(tmp_path / "run", change=change, monitor=Break())
    whole, _ = await play(tmp_path / "whole")
    assert "trajectories of step 1 failed (search_unavailable)" in reasons[0]
    clock = ("time/",)
    for ours, theirs in zip(run.read_metrics(), whole.read_metrics(), strict=True):
        assert {k: v for k, v in ours.items() if not k.startswith(clock)} == {
            k: v for k, v in theirs.items() if not k.startswith(clock)
        }


async def test_no_request_is_left_out_of_the_counts(tmp_path: Path) -> None:
    """Those of an evaluation stand in the row of the next step."""

    class Counted(Flaky):
        def counts(self) -> dict[str, float]:
            return {"requests": self.calls}

    engines: list[Counted] = []

    def change(parts: Parts) -> Parts:
        engines.append(Counted(parts.retriever, range(0)))
        return replace(parts, retriever=engines[0])

    made: list[int] = []

    class Watch(Silent):
        def stepped(self, row: Mapping[str, Any]) -> None:
            made.append(engines[0].calls)

    run, _ = await play(tmp_path / "run", "evaluation.every=1", change=change, monitor=Watch())
    counted = [row["search/requests"] for row in run.read_metrics()]
    assert [sum(counted[: step + 1]) for step in range(len(counted))] == made
    assert counted[0] > 0


async def test_it_learns(tmp_path: Path) -> None:
    """Not a smoke test: twelve steps must make the shipped policy clearly better at its training questions."""
    shape = ["steps=12", "data.atlas_entities=2000", "rollout.questions=12", "rollout.group_size=8"]
    little = ["evaluation.final_questions=6", "evaluation.every=0", "engine.threads=1"]
    recipe = load_recipe("atlas", [*shape, *little])
    run = tmp_path / "run"
    with RunFolder.create(run, recipe.resolved()) as folder:
        await Trainer(recipe, build_parts(recipe, run), folder, Silent()).train()
    scores = [row["train/exact_match"] for row in RunFolder.open(run).read_metrics()]
    assert fmean(scores[-3:]) > fmean(scores[:3]) + 0.1, scores


@pytest.mark.parametrize(("algorithm", "told"), [("grpo", 1), ("ppo", 0)])
def test_settings_of_a_critic_that_there_is_none_are_said_to_be_unused(
    algorithm: str, told: int, tmp_path: Path
) -> None:
    recipe = load_recipe("atlas", [*SMALL, f"algorithm.name={algorithm}", "critic.learning_rate=1e-3"])
    heard: list[str] = []
    build_parts(recipe, tmp_path, heard.append)
    assert sum("[critic] is not used: grpo has no critic" in line for line in heard) == told
