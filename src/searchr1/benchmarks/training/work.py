"""What is trained in one update, and of which model: the demo's first rollout, or made-up trajectories."""

from __future__ import annotations

import asyncio
import json
import math
import random
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from searchr1.errors import UserError, nearest
from searchr1.types import Sample

ATLAS = "atlas"
SEED = 7


@dataclass(frozen=True, slots=True)
class Shape:
    """A Qwen2.5: what the benchmark needs of its ``config.json``, and what one update of it is made of."""

    layers: int
    hidden: int
    heads: int
    intermediate: int
    samples: int
    micro_batch_tokens: int
    key_value_heads: int = 2
    vocabulary: int = 151_936


SHAPES = {
    "small": Shape(12, 256, 4, 1376, samples=8, micro_batch_tokens=2048),
    "0.5b": Shape(24, 896, 14, 4864, samples=64, micro_batch_tokens=16_384),
    "3b": Shape(36, 2048, 16, 11_008, samples=64, micro_batch_tokens=16_384),
}
"""``small`` is cut to what a processor does in seconds. Embeddings and head of all three are tied."""
MODELS = (ATLAS, *SHAPES)


@dataclass(frozen=True, slots=True)
class Work:
    """One update: ``samples``, one advantage for each, and the most tokens of a micro-batch, padding included."""

    model: str
    samples: list[Sample]
    advantages: list[float]
    micro_batch_tokens: int

    @property
    def tokens(self) -> int:
        """Tokens of the trajectories, prompts and observations included, padding not: what every system is timed by."""
        return sum(len(sample.token_ids) for sample in self.samples)

    @property
    def trained(self) -> int:
        return sum(sum(sample.mask) for sample in self.samples)

    def save(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> Work:
        saved = json.loads(file.read_text(encoding="utf-8"))
        samples = [
            Sample(tuple(s["token_ids"]), tuple(s["mask"]), tuple(s["logprobs"]), s["reward"], s["group"])
            for s in saved["samples"]
        ]
        return cls(saved["model"], samples, saved["advantages"], saved["micro_batch_tokens"])


def make_work(model: str, samples: int | None = None) -> Work:
    """The update of ``model``. ``samples`` limits the trajectories; the demo's own number is 192.

    Raises ``UserError`` for a model that there is none of.
    """
    if model not in MODELS:
        raise UserError(f"--model: there is no model {model!r}{nearest(model, MODELS)}")
    if model == ATLAS:
        made, limit = atlas_samples()[:samples], 8192
    else:
        shape = SHAPES[model]
        made, limit = search_samples(samples or shape.samples, shape.vocabulary), shape.micro_batch_tokens
    rng = random.Random(SEED)
    return Work(model, made, [rng.gauss(0, 1) for _ in made], limit)


def search_samples(count: int, vocabulary: int, *, longest: int = 2048) -> list[Sample]:
    """Trajectories of one to four turns, with the lengths of a Search-R1 run, of random tokens.

    Prompts have 150 to 300 tokens. Turns have 60 and observations 300 in the median, log-normally spread, the latter
    cut at 500. The behaviour is that of an untrained model: every token as probable as any other.

    >>> [sample] = search_samples(1, 100)
    >>> 150 <= sample.mask.index(True) <= 300
    True
    """
    rng = random.Random(SEED)

    def length(median: int, spread: float, most: int) -> int:
        return max(8, min(most, round(rng.lognormvariate(math.log(median), spread))))

    made = []
    for number in range(count):
        mask = [False] * rng.randint(150, 300)
        for turn in range(rng.randint(1, 4)):
            mask += [False] * (length(300, 0.5, 500) if turn else 0)
            mask += [True] * length(60, 0.6, 400)
        mask = mask[:longest]
        ids = tuple(rng.randrange(vocabulary) for _ in mask)
        logprobs = tuple(-math.log(vocabulary) if trained else 0.0 for trained in mask)
        made.append(Sample(ids, tuple(mask), logprobs, 0.0, str(number)))
    return made


def atlas_samples() -> list[Sample]:
    """What the demo trains in its first step: 192 trajectories of the shipped policy, with a real index."""
    from searchr1.agents.rollout import rollout
    from searchr1.assemble import build_parts
    from searchr1.config import load_recipe
    from searchr1.train import jobs_of, questions_of
    from searchr1.training.samples import to_sample
    from searchr1.types import Scored

    recipe = load_recipe("atlas")
    with tempfile.TemporaryDirectory() as folder:
        parts = build_parts(recipe, Path(folder), lambda line: None)
        questions = questions_of(1, parts.train, recipe.rollout.questions, recipe.seed)
        jobs = jobs_of(1, questions, recipe.rollout.group_size, recipe.seed)
        played = asyncio.run(rollout(jobs, parts.agent, parts.engine, parts.retriever, concurrency=len(jobs)))
    return [to_sample(Scored(trajectory, 0.0, {}), str(number)) for number, trajectory in enumerate(played)]


def build_model(model: str) -> Any:
    """The shipped policy, or a random model of one of the ``SHAPES``, with float32 weights."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

    if model == ATLAS:
        folder = Path(__file__).resolve().parents[2] / "models" / "atlas-base"
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    shape = SHAPES[model]
    torch.manual_seed(SEED)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=shape.vocabulary,
            hidden_size=shape.hidden,
            intermediate_size=shape.intermediate,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.key_value_heads,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
        )
    )


def needed_flops(work: Work, model: Any) -> float:
    """Floating-point operations that the update asks for: 6 for every weight a token meets, and causal attention.

    The output head is met by trained tokens alone. Padding, logits that nobody asked for and what is computed a second
    time are no part of it, so that all of them lower the utilisation of whoever spends time on them.
    """
    config = model.config
    head = config.vocab_size * config.hidden_size
    body = sum(p.numel() for p in model.parameters() if p.ndim >= 2) - head
    if not config.tie_word_embeddings:
        body -= head
    width = config.num_attention_heads * (
        getattr(config, "head_dim", 0) or config.hidden_size // config.num_attention_heads
    )
    squares = sum(len(sample.token_ids) ** 2 for sample in work.samples)
    return float(6 * (body * work.tokens + head * work.trained + config.num_hidden_layers * width * squares))
