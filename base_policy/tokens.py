"""The base policy's tokenizer: byte-level BPE in which every word of the atlas is one token.

Bytes remain, so any text round-trips; it is only longer. The dialogue's tags are single (ordinary, visible) tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

from searchr1.data.atlas import lexicon
from searchr1.data.atlas.questions import FORMS, questions
from searchr1.data.atlas.text import passage
from searchr1.data.atlas.world import World
from searchr1.protocols.tags import INVALID

TAGS = ("<think>", "</think>", "<search>", "</search>", "<information>", "</information>", "<answer>", "</answer>")
EOS = "<|endoftext|>"
DEMONSTRATION_WORDS = (
    ' one step two steps compare not found found now the then unknown\nDoc 1(Title: "A") B.\nDoc 2(Title: '
    "\n\n\nAnswer now. Question:\n"
)


def _texts() -> Iterator[str]:
    """Text in which every word that the base policy will meet occurs, with and without a space before it."""
    world = World(seed=1, size=5000)
    for entity in range(world.size):
        page = passage(world, entity)
        yield f'("{page.title}") {page.text}'
    for form in FORMS:
        for asked in questions(world, form, 3000, test=False):
            yield f"Question: {asked.text}\n"
    values = (lexicon.FIRST_WORDS, lexicon.SECOND_WORDS, lexicon.PROFESSIONS, lexicon.GOODS, lexicon.GENRES,
              lexicon.FIELDS, lexicon.YEARS)  # fmt: skip
    for words in values:
        for word in words:
            yield f'("{word} {word} " {word}' * 4
    for _ in range(200):
        yield DEMONSTRATION_WORDS + INVALID


def make_tokenizer(folder: Path) -> Qwen2Tokenizer:
    """Train the tokenizer and save it in Hugging Face format.

    It splits text as Qwen2's does, whose class transformers loads for any folder that holds a Qwen2 model; that class
    takes numbers apart, so the years are added as tokens of their own.
    """
    qwen = Qwen2Tokenizer()
    trained = Tokenizer(models.BPE())
    trained.normalizer = qwen.backend_tokenizer.normalizer
    trained.pre_tokenizer = qwen.backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=8000, min_frequency=2, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    trained.train_from_iterator(_texts(), trainer)
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Qwen2Tokenizer(vocab=model["vocab"], merges=merges, eos_token=EOS, pad_token=EOS, model_max_length=1024)
    years = [AddedToken(f" {year}", normalized=False) for year in lexicon.YEARS]
    tokenizer.add_tokens([*(AddedToken(tag, normalized=False) for tag in TAGS), *years])
    tokenizer.save_pretrained(folder)
    return tokenizer
