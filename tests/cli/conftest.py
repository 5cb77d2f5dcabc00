"""The command line in this process, and a tiny random policy that often searches and answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, pre_tokenizers
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer
from typer.testing import CliRunner, Result

from searchr1.cli import app

TAGS = ("<think>", "</think>", "<search>", "</search>", "<answer>", "</answer>")
SMALL = {
    "steps": 2,
    "data.atlas_entities": 300,
    "rollout.questions": 2,
    "rollout.group_size": 4,
    "rollout.turn_tokens": 24,
    "rollout.observation_tokens": 150,
    "rollout.context_tokens": 900,
    "evaluation.every": 1,
    "evaluation.questions": 3,
    "evaluation.final_questions": 6,
    "save.checkpoint_every": 1,
    "algorithm.drop_zero_variance": "false",
}
Searchr1 = Callable[..., Result]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bytes and tags for a vocabulary; the first hidden number is always large and the tags' logits grow with it."""
    folder = tmp_path_factory.mktemp("tiny-model")
    vocabulary = {symbol: place for place, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], eos_token="<eos>", pad_token="<eos>", unk_token="<eos>")
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS])
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    model: Any = Qwen2ForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 1.0
        model.lm_head.weight[tokenizer.convert_tokens_to_ids(list(TAGS)), 0] = 0.5
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def searchr1() -> Searchr1:
    """``searchr1(*arguments)`` -> the result, with ``exit_code``, ``stdout`` and ``stderr``; bugs are raised."""

    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture(scope="session")
def settings(tiny_model: Path) -> list[str]:
    """``--set`` options of a run that takes a second or two."""
    return [part for key, value in {**SMALL, "model": tiny_model}.items() for part in ("--set", f"{key}={value}")]


@pytest.fixture(scope="session")
def trained(searchr1: Searchr1, settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A finished run of two steps, and what the command said. Read it only."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    return folder, searchr1("train", "atlas", *settings, "--out", folder)


def write_jsonl(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    passages = [
        {"id": "d", "title": "Dune", "text": "Dune is a novel by Frank Herbert."},
        {"id": "h", "title": "Frank Herbert", "text": "Frank Herbert was born in Tacoma."},
        {"id": "e", "title": "Emma", "text": "Emma is a novel by Jane Austen."},
    ]
    return write_jsonl(tmp_path / "corpus.jsonl", passages)


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    rows = [
        {"id": "1", "question": "Who wrote Dune?", "answers": ["Frank Herbert"], "dataset": "one"},
        {"id": "2", "question": "Who wrote Emma?", "answers": ["Jane Austen"], "dataset": "one"},
        {"id": "3", "question": "Where was the author of Dune born?", "answers": ["Tacoma"], "dataset": "two"},
    ]
    return write_jsonl(tmp_path / "questions.jsonl", rows)


@pytest.fixture
def index(corpus: Path, tmp_path: Path, searchr1: Searchr1) -> Path:
    assert searchr1("index", "build", corpus, "--out", tmp_path / "index").exit_code == 0
    return tmp_path / "index"
