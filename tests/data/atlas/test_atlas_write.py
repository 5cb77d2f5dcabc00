"""The atlas as files: what is in them, whole or not at all, and never over anything else."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from searchr1.data.atlas import write
from searchr1.data.atlas.questions import COMPARISON, FORMS, ONE_HOP, TWO_HOP, questions
from searchr1.data.atlas.text import passage
from searchr1.data.atlas.world import World
from searchr1.data.atlas.write import write_atlas
from searchr1.data.jsonl import read_rows
from searchr1.data.questions import read_questions
from searchr1.errors import UserError

SMALL: dict[str, Any] = {"seed": 3, "entities": 1000, "train": 90, "test": 45}


def rows(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(path)]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_files(tmp_path: Path) -> None:
    manifest = write_atlas(tmp_path / "new" / "atlas", **SMALL)
    folder = tmp_path / "new" / "atlas"
    assert sorted(files(folder)) == ["atlas.json", "corpus.jsonl", "test.jsonl", "train.jsonl"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["atlas"]
    pages = [passage(World(3, 1000), entity) for entity in range(1000)]
    assert rows(folder / "corpus.jsonl") == [{"id": page.id, "title": page.title, "text": page.text} for page in pages]
    assert json.loads((folder / "atlas.json").read_bytes()) == manifest
    assert {key: manifest[key] for key in manifest if key not in ("sha256", "shares")} == {
        "format": "searchr1-atlas",
        "version": 1,
        **SMALL,
        "sizes": {"corpus": 1000, "train": 90, "test": 45},
    }
    assert manifest["shares"] == [1 / 3, 1 / 3, 1 / 3]


@pytest.mark.parametrize("split", ["train", "test"])
def test_question_files(tmp_path: Path, split: str) -> None:
    write_atlas(tmp_path / "atlas", **SMALL)
    path = tmp_path / "atlas" / f"{split}.jsonl"
    assert list(rows(path)[0]) == ["id", "question", "answers", "dataset", "form", "hops", "supporting_titles"]
    read = read_questions(path)
    assert [q.dataset for q in read] == [ONE_HOP, TWO_HOP, COMPARISON] * (SMALL[split] // 3)
    for form in FORMS:
        expected = questions(World(3, 1000), form, SMALL[split] // 3, test=split == "test")
        assert [q for q in read if q.dataset == form] == expected


def test_known_bytes(tmp_path: Path) -> None:
    """Raise the version of the format before changing these."""
    manifest = write_atlas(tmp_path / "atlas", **SMALL)
    assert manifest["version"] == 1
    assert manifest["sha256"] == {
        "corpus.jsonl": "ec8cc7a58636291c5c04782bc763237e4543c5a6cf7ba8c82e475eea130bfb37",
        "train.jsonl": "4eba0990ad6b5651c34aba17892af673c1d012445d137a7ebf2cb5b09c8abca0",
        "test.jsonl": "32287c289af110efe8427ed1912c88a48abd1ebc2c3eb0dee9cb3846cad67f9e",
    }


def test_the_same_request_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    write_atlas(tmp_path / "a", **SMALL)
    write_atlas(tmp_path / "b", **SMALL)
    write_atlas(tmp_path / "c", **{**SMALL, "seed": 4})
    a, b, c = (files(tmp_path / name) for name in "abc")
    assert a == b
    assert all(a[name] != c[name] for name in a)


def test_any_beginning_has_the_shares_of_the_whole(tmp_path: Path) -> None:
    write_atlas(tmp_path / "atlas", **SMALL, shares=(3, 1.5, 1.5))
    forms = [q.dataset for q in read_questions(tmp_path / "atlas" / "train.jsonl")]
    for n in range(1, len(forms) + 1):
        for form, share in zip(FORMS, (0.5, 0.25, 0.25), strict=True):
            assert abs(forms[:n].count(form) - share * n) < 1, (n, form)
    tested = [q.dataset for q in read_questions(tmp_path / "atlas" / "test.jsonl")]
    assert [tested.count(form) for form in FORMS] == [15, 15, 15]


def test_a_form_may_be_left_out_of_training(tmp_path: Path) -> None:
    write_atlas(tmp_path / "atlas", **SMALL, shares=(0, 1, 0))
    assert {q.dataset for q in read_questions(tmp_path / "atlas" / "train.jsonl")} == {TWO_HOP}


def test_a_small_world_gives_what_it_has(tmp_path: Path) -> None:
    manifest = write_atlas(tmp_path / "atlas", entities=100)
    sizes = manifest["sizes"]
    assert (manifest["train"], manifest["test"]) == (4000, 600)
    assert 1000 < sizes["train"] < 4000
    assert 200 < sizes["test"] < 600
    for split in ("train", "test"):
        read = read_questions(tmp_path / "atlas" / f"{split}.jsonl")
        counts = [sum(q.dataset == form for q in read) for form in FORMS]
        assert sum(counts) == sizes[split]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"entities": 9}, "entities: a world has 10 to 2000000 entities, got 9"),
        ({"entities": 10}, "entities: a world of 10 has no comparison question for test; raise it (100 is enough)"),
        ({"train": 0}, "train: expected at least 1 question, got 0"),
        ({"test": -1}, "test: expected at least 1 question, got -1"),
        ({"shares": (1, 1)}, "shares: expected 3 numbers of at least 0 (one-hop, two-hop, comparison), got (1, 1)"),
        ({"shares": (0, 0, 0)}, "got (0, 0, 0)"),
        ({"shares": (1, -1, 1)}, "got (1, -1, 1)"),
        ({"shares": (1, float("nan"), 1)}, "got (1, nan, 1)"),
    ],
)
def test_requests_that_cannot_be_served(tmp_path: Path, request_: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        write_atlas(tmp_path / "atlas", **request_)
    assert message in str(refused.value)
    assert list(tmp_path.iterdir()) == []


# --- what is there already


def test_the_same_atlas_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write_atlas(tmp_path / "atlas", **SMALL)
    monkeypatch.setattr(write, "_write_files", None)  # calling it would fail
    assert write_atlas(tmp_path / "atlas", **SMALL, shares=[2, 2, 2]) == first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, "expected an empty folder or an atlas with seed 4, got 3; remove it or choose another folder"),
        ({"entities": 999}, "an atlas with entities 999, got 1000"),
        ({"train": 91}, "an atlas with train 91, got 90"),
        ({"test": 44}, "an atlas with test 44, got 45"),
        ({"shares": (1, 0, 0)}, "an atlas with shares [1.0, 0.0, 0.0], got [0.3333"),
    ],
)
def test_another_atlas_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_atlas(tmp_path / "atlas", **SMALL)
    before = files(tmp_path / "atlas")
    with pytest.raises(UserError) as refused:
        write_atlas(tmp_path / "atlas", **{**SMALL, **change})
    assert message in str(refused.value)
    assert files(tmp_path / "atlas") == before


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atlas(tmp_path / "atlas", **SMALL)
    monkeypatch.setitem(write.FORMAT, "version", 2)
    with pytest.raises(UserError, match="an atlas with version 2, got 1"):
        write_atlas(tmp_path / "atlas", **SMALL)


@pytest.mark.parametrize("name", ["corpus.jsonl", "train.jsonl", "test.jsonl"])
@pytest.mark.parametrize("lost", [False, True])
def test_a_changed_atlas_is_refused(tmp_path: Path, name: str, lost: bool) -> None:
    write_atlas(tmp_path / "atlas", **SMALL)
    path = tmp_path / "atlas" / name
    content = path.read_bytes()
    path.unlink()
    if not lost:
        path.write_bytes(content[:-1])
    with pytest.raises(UserError, match=rf"{name}: expected the file as it was written, but it was changed; remove it"):
        write_atlas(tmp_path / "atlas", **SMALL)


def test_a_manifest_without_digests_vouches_for_nothing(tmp_path: Path) -> None:
    manifest = write_atlas(tmp_path / "atlas", **SMALL)
    del manifest["sha256"]
    (tmp_path / "atlas" / "atlas.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"corpus\.jsonl: expected the file as it was written"):
        write_atlas(tmp_path / "atlas", **SMALL)


def test_other_things_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for name in ("file", "full"):
        with pytest.raises(
            UserError, match=rf"{name}: expected an empty folder or an atlas, got something else; remove"
        ):
            write_atlas(tmp_path / name, **SMALL)
    for content in ("{", "[]", '{"format": "else"}', '{"format": "searchr1-atlas", "version": 1}'):
        (tmp_path / "full" / "atlas.json").write_text(content)
        with pytest.raises(UserError, match="expected"):
            write_atlas(tmp_path / "full", **SMALL)
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    write_atlas(tmp_path / "link", **SMALL)
    assert len(files(tmp_path / "empty")) == 4
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_atlas(".", **SMALL)
    assert files(tmp_path / "here") == files(tmp_path / "empty")


# --- whole or not at all


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    def fail(done: int, total: int) -> None:
        assert not (tmp_path / "atlas").exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atlas(tmp_path / "atlas", **SMALL, progress=fail)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_fills_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    def intrude(done: int, total: int) -> None:
        (tmp_path / "atlas").mkdir()
        (tmp_path / "atlas" / "mine.txt").write_text("mine")

    with pytest.raises(OSError, match="not empty"):
        write_atlas(tmp_path / "atlas", **SMALL, progress=intrude)
    assert [path.name for path in tmp_path.iterdir()] == ["atlas"]
    assert [path.name for path in (tmp_path / "atlas").iterdir()] == ["mine.txt"]


def test_progress_counts_passages(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_atlas(tmp_path / "atlas", **{**SMALL, "entities": 2500}, progress=lambda *counts: seen.append(counts))
    assert seen == [(1000, 2500), (2000, 2500), (2500, 2500)]


def test_memory_does_not_grow_with_the_passages(tmp_path: Path) -> None:
    def peak(entities: int) -> int:
        tracemalloc.start()
        try:
            write_atlas(tmp_path / str(entities), entities=entities, train=30, test=30)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(500)  # imports and caches
    assert (tmp_path / "500" / "corpus.jsonl").stat().st_size < 100_000
    assert peak(5000) < peak(1000) + 100_000  # its corpus has half a million bytes more
