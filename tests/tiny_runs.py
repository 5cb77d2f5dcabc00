"""Runs of a second: a policy of a few thousand weights, trajectories made by hand, and an engine that knows some."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from searchr1.agents import build_agent
from searchr1.assemble import Parts
from searchr1.config import Recipe, build_recipe
from searchr1.protocols.tags import Tags
from searchr1.retrieval.dictionary import DictionaryRetriever
from searchr1.run import RunFolder
from searchr1.tokenization import ByteTokenizer
from searchr1.train import Trainer
from searchr1.training.packing import pack
from searchr1.training.policy import Policy
from searchr1.training.samples import to_sample
from searchr1.types import (
    Answer,
    Completion,
    FinishReason,
    Question,
    Sampling,
    Scored,
    Search,
    Segment,
    Source,
    StopReason,
    Trajectory,
    Turn,
)
from searchr1.waiting import Silent

BYTES = ByteTokenizer()


def policy_for(recipe: Recipe, vocabulary: int, *, seed: int = 0, **shape: Any) -> Policy:
    """What the recipe's algorithm needs, around a random Qwen2 of one layer."""
    torch.manual_seed(seed)
    made: dict[str, Any] = {
        "vocab_size": vocabulary, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512,
        "tie_word_embeddings": False, "initializer_range": 0.2, "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip
    needs = recipe.build_algorithm().needs
    return Policy(
        Qwen2ForCausalLM(Qwen2Config(**made | shape)),
        recipe.optimizer,
        temperature=recipe.rollout.temperature,
        reference=needs.reference,
        critic=recipe.critic if needs.values else None,
    )


# Trajectories by hand.


def trajectory(
    question: str, *turns: Sequence[int], logprobs: Sequence[float] = (), stop: StopReason = StopReason.ANSWERED
) -> Trajectory:
    """Prompt (1, 2), what the policy said in each turn, and an observation (5, 6, 7) between two turns."""
    chances = iter(logprobs or [-1.0] * sum(map(len, turns)))
    segments = [Segment(Source.PROMPT, (1, 2))]
    for number, said in enumerate(turns):
        if number:
            segments.append(Segment(Source.ENVIRONMENT, (5, 6, 7)))
        segments.append(Segment(Source.POLICY, tuple(said), tuple(next(chances) for _ in said)))
    actions = [Turn(Search("?"), policy_tokens=len(said)) for said in turns[:-1]] + [Turn(Answer("a"))] * bool(turns)
    return Trajectory(Question(question, "?", ("a",)), tuple(segments), tuple(actions), "a", stop, 0, 0)


def on_policy(policy: Policy, scored: Sequence[Scored]) -> list[Scored]:
    """The same trajectories with the policy's own log-probabilities, as if it had just said them."""
    chances = iter(policy.score(pack([to_sample(item, "q") for item in scored])).tolist())

    def own(segment: Segment) -> Segment:
        return replace(segment, logprobs=tuple(next(chances) for _ in segment.logprobs))

    return [
        replace(item, trajectory=replace(item.trajectory, segments=tuple(map(own, item.trajectory.segments))))
        for item in scored
    ]


def random_step(
    seed: int, vocabulary: int = 12, *, questions: int = 3, size: int = 4
) -> tuple[list[Scored], list[str]]:
    """Groups of trajectories of one to three turns with random words and rewards, some of which turns earned."""
    rng = random.Random(seed)
    scored, groups = [], []
    for question in range(questions):
        for _ in range(size):
            turns = [[rng.randrange(vocabulary) for _ in range(rng.randint(1, 4))] for _ in range(rng.randint(1, 3))]
            chances = [-rng.uniform(1, 3) for turn in turns for _ in turn]
            earned = tuple(rng.choice([0.0, 0.25]) for _ in turns)
            reward = rng.choice([0.0, 1.0]) + sum(earned)
            scored.append(Scored(trajectory(str(question), *turns, logprobs=chances), reward, {}, earned))
            groups.append(f"nq/{question}")
    return scored, groups


# Whole runs.


class Oracle:
    """An engine that answers "right" or "wrong", as ``knows(question, seed)`` has it."""

    def __init__(self, knows: Callable[[str, int], bool]) -> None:
        self.knows = knows

    @contextmanager
    def session(self) -> Iterator[None]:
        yield None

    async def generate(self, token_ids: Sequence[int], sampling: Sampling, *, session: None) -> Completion:
        question = BYTES.decode(token_ids).split("Question: ")[1].split("\n")[0]
        said = "right" if self.knows(question, sampling.seed) else "wrong"
        ids = BYTES.encode(f"<answer> {said} </answer>")
        return Completion(tuple(ids), (-0.5,) * len(ids), FinishReason.STOP, 0)

    async def load(self, weights: object, version: int) -> None:
        pass


def ask(*texts: str, dataset: str = "nq") -> list[Question]:
    """Questions whose id is their place, and whose answer is "right"."""
    return [Question(str(number), text, ("right",), dataset) for number, text in enumerate(texts)]


def recipe_of(*overrides: str, **tables: Any) -> Recipe:
    plain: dict[str, Any] = {
        "protocol": {"prompt_template": "short", "chat": "never"},
        "rollout": {"max_searches": 0, "turn_tokens": 40, "context_tokens": 200, "questions": 4, "group_size": 4},
        "evaluation": {"final_questions": 1, "decodings": ("greedy",), "baselines": ()},
        "save": {"checkpoint_every": 1, "trajectories_every": 1},
        "optimizer": {"learning_rate": 1e-3},
    }
    return build_recipe(plain | tables, overrides)


async def train(
    folder: Path,
    recipe: Recipe,
    questions: Sequence[Question],
    knows: Callable[[str, int], bool],
    *,
    monitor: Any = None,
    resume: bool = False,
) -> RunFolder:
    """The run after its last step."""
    policy = policy_for(recipe, BYTES.vocabulary_size)
    protocol = Tags(BYTES, recipe.protocol.prompt_template, recipe.protocol.chat)
    agent = build_agent("search_r1", protocol, BYTES, recipe.rollout)
    parts = Parts(policy, BYTES, protocol, Oracle(knows), DictionaryRetriever({}), agent, questions, questions[:1])
    make = RunFolder.resume if resume else RunFolder.create
    with make(folder, recipe.resolved()) as run:
        await Trainer(recipe, parts, run, monitor or Silent()).train()
    return RunFolder.open(folder)


def differing(one: Any, other: Any) -> list[str]:
    """Where two nested states do not hold the same, bit for bit."""
    left, right = (dict(_leaves(state)) for state in (one, other))
    return [path for path in sorted({*left, *right}) if not _same(left.get(path), right.get(path))]


def _leaves(state: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(state, dict | list | tuple) and state:
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from _leaves(value, f"{path}/{key}")
    else:
        yield path, state


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)
