"""The shipped base policy is what its manifest says, and has never seen a test question's entity."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path

import pytest

from searchr1.assemble import model_path
from searchr1.data.atlas import lexicon
from searchr1.data.atlas.questions import FORMS
from searchr1.data.atlas.world import World, is_held_out
from searchr1.tokenization import HFTokenizer

FOLDER = Path(model_path("atlas-base"))
MANIFEST = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))


def test_every_file_is_the_one_that_the_recipe_made() -> None:
    on_disk = {path.name for path in FOLDER.iterdir()} - {"manifest.json"}
    assert on_disk == set(MANIFEST["sha256"])
    for name, expected in MANIFEST["sha256"].items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == expected, name


def test_manifest_names_seed_and_versions() -> None:
    assert MANIFEST["recipe"]["seed"] >= 0
    assert {"searchr1", "torch", "transformers", "tokenizers"} <= set(MANIFEST["versions"])


def test_size_is_at_most_20_mb() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 20_000_000


def test_recipe_worlds_hold_no_reserved_name() -> None:
    seed, size = MANIFEST["recipe"]["seed"] * 1000, MANIFEST["recipe"]["world_size"]
    world = World(seed, size, exclude_held_out=True)
    assert not any(is_held_out(world.name(entity)) for entity in range(size))


@pytest.fixture(scope="module")
def tokenizer() -> HFTokenizer:
    return HFTokenizer(str(FOLDER))


def test_words_years_and_tags_are_single_tokens(tokenizer: HFTokenizer) -> None:
    words = [*lexicon.FIRST_WORDS, *lexicon.SECOND_WORDS, *lexicon.GOODS, *lexicon.FIELDS, *lexicon.YEARS]
    assert [word for word in words if len(tokenizer.encode(f" {word}")) != 1] == []
    for tag in ("think", "search", "information", "answer"):
        assert len(tokenizer.encode(f"<{tag}></{tag}>")) == 2


@pytest.mark.parametrize("text", ["Who wrote Dune?", "Héllo 世界 <search> x", "in 18745. 1999!", " \t\n\n  x"])
def test_any_text_round_trips(tokenizer: HFTokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_forms_are_those_of_the_recipe() -> None:
    assert len(FORMS) == len(MANIFEST["recipe"]["mixtures"][0]["forms"])


def test_it_ships_with_the_package() -> None:
    assert (files("searchr1") / "models" / "atlas-base" / "model.safetensors").is_file()
