"""The base policy's recipe: deterministic, and blind to every name that a test question can use."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from searchr1.assemble import model_path
from searchr1.data.atlas import lexicon
from searchr1.data.atlas.world import is_held_out
from searchr1.protocols.tags import Tags
from searchr1.tokenization import HFTokenizer

FOLDER = Path(__file__).parents[2] / "base_policy"
NAME = re.compile(rf"\b(?:{'|'.join(lexicon.FIRST_WORDS)}) (?:{'|'.join(lexicon.SECOND_WORDS)})\b")


@pytest.fixture(scope="module")
def make() -> Any:
    """The recipe's main module."""
    sys.path.insert(0, str(FOLDER))
    import make

    return make


def test_documents_are_repeatable_and_hold_no_page_or_question_of_a_reserved_name(make: Any, tmp_path: Path) -> None:
    tokenizer = HFTokenizer(model_path("atlas-base"))
    dialogue = Tags(tokenizer, "short", "never")
    for mixture in make.Recipe().mixtures:
        quiet = replace(mixture, noise=replace(mixture.noise, first_right=1.0, bridge_right=1.0, second_right=1.0))
        one, two = (make.documents(5, 150, 300, quiet, tokenizer, dialogue, tmp_path / "scratch") for _ in range(2))
        assert one == two
        text = " ".join(tokenizer.decode(document.ids) for document in one)
        wrong = re.compile(r"<search>[^<]*</search>")  # a wrong query is two random words, of any name
        named = set(NAME.findall(wrong.sub("", text)))
        assert len(named) > 200
        assert not [name for name in named if is_held_out(name)]


def test_what_is_spoken_is_what_a_policy_would_say(make: Any, tmp_path: Path) -> None:
    tokenizer = HFTokenizer(model_path("atlas-base"))
    mixture = replace(make.Recipe().mixtures[1], pages=0.0, drill=0.0)
    made = make.documents(6, 60, 300, mixture, tokenizer, Tags(tokenizer, "short", "never"), tmp_path / "scratch")
    for document in made:
        assert len(document.ids) == len(document.spoken)
        said = tokenizer.decode([i for i, spoken in zip(document.ids, document.spoken, strict=True) if spoken])
        turns = r"(<think>[^<]+</think><search>[^<]+</search>)*<think>[^<]+</think><answer>[^<]+</answer>"
        assert re.fullmatch(turns, said), said


def test_the_same_recipe_gives_the_same_weights(make: Any, tmp_path: Path) -> None:
    recipe = make.Recipe(tokens=15_000, documents_per_world=100, world_size=300)
    threads = torch.get_num_threads()
    try:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            make.train(recipe, tmp_path / name, tmp_path / "scratch")
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
