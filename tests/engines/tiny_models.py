"""Random models small enough for a test, and a tokenizer of one printable character per id."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import torch
import transformers

from searchr1.engines.local import LocalEngine
from searchr1.types import Completion, Sampling

VOCABULARY = 64
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    # Weights large enough that attention shows in the logits.
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
GROUPED: dict[str, Any] = SMALL | {"num_key_value_heads": 2}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("sdpa", GROUPED | {"model_type": "qwen2", "tie_word_embeddings": True}),
    "qwen2-eager": ("eager", GROUPED | {"model_type": "qwen2", "tie_word_embeddings": True}),
    "qwen3": ("sdpa", GROUPED | {"model_type": "qwen3", "head_dim": 16}),
    "llama": ("sdpa", GROUPED | {"model_type": "llama"}),
    "gpt_neox": ("sdpa", SMALL | {"model_type": "gpt_neox"}),
    "gpt2": (
        "sdpa",
        {"model_type": "gpt2", "vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
        | {"initializer_range": 0.3, "bos_token_id": None, "eos_token_id": None},
    ),
    "gemma2": ("eager", GROUPED | {"model_type": "gemma2", "head_dim": 8, "sliding_window": 256}),
}


def tiny(name: str = "qwen2", seed: int = 0, **changes: Any) -> Any:
    attention, options = ARCHITECTURES[name]
    config = transformers.AutoConfig.for_model(**(options | changes))
    torch.manual_seed(seed)
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


class CharacterTokenizer:
    """Ids 0 to 63 are the characters from '!' on."""

    def __init__(self, eos_ids: tuple[int, ...] = ()) -> None:
        self.eos_ids = eos_ids

    def encode(self, text: str) -> list[int]:
        return [ord(character) - 33 for character in text]

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(chr(33 + i) for i in token_ids)

    def chat(self, text: str) -> list[int] | None:
        return None


def plain_logprobs(model: Any, tokens: Sequence[int], temperature: float = 1.0) -> torch.Tensor:
    """Log-probability of every token after the first, from one plain forward pass."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([list(tokens)])).logits[0, :-1].float() / temperature
    return logits.log_softmax(-1).gather(1, torch.tensor(list(tokens[1:]))[:, None])[:, 0]


Turns = list[tuple[list[int], Completion]]


async def dialogue(
    engine: LocalEngine, seed: int, *, turns: int = 3, jitter: random.Random | None = None, **sampling: Any
) -> Turns:
    """(context, completion) of each turn; the observations after them have 3 to 20 tokens."""
    generator = random.Random(seed)

    def words() -> list[int]:
        return [generator.randrange(VOCABULARY) for _ in range(generator.randint(3, 20))]

    options: dict[str, Any] = {"max_tokens": 16, "stop": ("A", "Q")} | sampling
    done: Turns = []
    with engine.session() as session:
        context = words()
        for turn in range(turns):
            if jitter:
                await asyncio.sleep(jitter.random() * 0.004)
            completion = await engine.generate(context, Sampling(seed=seed * 10 + turn, **options), session=session)
            done.append((context, completion))
            context = [*context, *completion.token_ids, *words()]
    return done


async def dialogues(engine: LocalEngine, seeds: Sequence[int], **options: Any) -> list[Turns]:
    return await asyncio.gather(*(dialogue(engine, seed, **options) for seed in seeds))
