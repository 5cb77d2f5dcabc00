"""Checkpoints continue a run bit for bit, and no kill, full disk or bad copy makes a broken one pass for whole."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_policies import advantages, model, sample
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from searchr1.algorithms.grpo import GRPO
from searchr1.errors import UserError
from searchr1.training import checkpoint
from searchr1.training.checkpoint import (
    checkpoint_steps,
    latest_checkpoint,
    load_checkpoint,
    prune_checkpoints,
    remove_stale,
    save_checkpoint,
    verify_checkpoint,
)
from searchr1.training.optimization import Optimization
from searchr1.training.packing import pack
from searchr1.training.policy import Policy

OPTIONS = Optimization(learning_rate=3e-3, warmup_updates=4)
SAMPLES = [sample(n, n) for n in (9, 4, 12, 6)]
BATCHES = pack(SAMPLES, advantages_N=advantages(SAMPLES), max_tokens=24)
STATE = {"data": {"epoch": 1, "cursor": 17}, "best": 0.25, "names": ["a", "b"]}


def train(policy: Policy, updates: int) -> None:
    for _ in range(updates):
        policy.update(BATCHES, GRPO(entropy_bonus=0.01).loss)


def weights(policy: Policy) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in policy.weights()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def draws() -> tuple[float, float, float, float]:
    return torch.rand(1).item(), random.random(), float(np.random.rand()), float(np.random.randn())


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    words = {f"w{i}": i for i in range(30)} | {"[UNK]": 30}
    backend = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")


@pytest.mark.parametrize("kind", ["qwen2", "llama"])  # tied and untied heads
def test_training_continues_bit_for_bit(kind: str, tmp_path: Path) -> None:
    straight = Policy(model(kind), OPTIONS)
    train(straight, 3)
    np.random.randn()  # leaves a second normal number waiting inside the generator
    folder = save_checkpoint(tmp_path, 3, straight, tiny_tokenizer(), STATE)
    expected_draws = draws()
    train(straight, 4)

    resumed = Policy(model(kind, seed=9), OPTIONS, reference=True)
    reference = {name: value.clone() for name, value in resumed.reference.state_dict().items()}  # type: ignore[union-attr]
    assert load_checkpoint(folder, resumed) == STATE
    assert draws() == expected_draws
    assert resumed.updates == 3
    train(resumed, 4)
    assert same(weights(resumed), weights(straight))
    for p, q in zip(resumed.model.parameters(), straight.model.parameters(), strict=True):
        ours, theirs = resumed.optimizer.adamw.state[p], straight.optimizer.adamw.state[q]
        assert torch.equal(ours["exp_avg_sq"], theirs["exp_avg_sq"])
    assert resumed.reference is not None
    assert same(reference, dict(resumed.reference.state_dict()))


def test_a_checkpoint_is_a_hugging_face_model_with_its_tokenizer(tmp_path: Path) -> None:
    policy = Policy(model(), OPTIONS)
    train(policy, 1)
    folder = save_checkpoint(tmp_path, 12, policy, tiny_tokenizer(), {})
    assert folder == tmp_path / "step-12"
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert same({k: v.clone() for k, v in loaded.state_dict().items()}, weights(policy))
    assert PreTrainedTokenizerFast.from_pretrained(folder)("w3 w7")["input_ids"] == [3, 7]
    manifest = json.loads((folder / "checkpoint.json").read_text())
    assert (manifest["format"], manifest["version"], manifest["step"]) == ("searchr1-checkpoint", 2, 12)
    files = {p.name for p in folder.iterdir()}
    assert set(manifest["sha256"]) == files - {"checkpoint.json"}
    assert {"model.safetensors", "config.json", "tokenizer.json", "training_state.pt"} <= files
    assert verify_checkpoint(folder) == 12
    assert [p.name for p in tmp_path.iterdir()] == ["step-12"]


class Killed(BaseException):
    """Stands for kill -9: nothing after it runs, clean-up included."""


def test_a_kill_at_any_moment_leaves_no_broken_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy(model(), OPTIONS)
    save_checkpoint(tmp_path, 1, policy, None, {"n": 1})
    rmtree, whole = shutil.rmtree, weights(policy)
    train(policy, 1)
    moments = 0
    while True:
        calls = 0

        def dying(real: Any, moment: int = moments) -> Any:
            def call(*args: Any, **options: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls > moment:
                    raise Killed
                return real(*args, **options)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint.shutil, "rmtree", dying(rmtree))
            patch.setattr(torch, "save", dying(torch.save))
            patch.setattr(policy.model, "save_pretrained", dying(policy.model.save_pretrained))
            patch.setattr(Path, "write_text", dying(Path.write_text))
            patch.setattr(Path, "rename", dying(Path.rename))
            patch.setattr(os, "fsync", dying(os.fsync))
            try:
                save_checkpoint(tmp_path, 2, policy, None, {"n": 2})
            except Killed:
                finished = False
            else:
                finished = True
        newest = latest_checkpoint(tmp_path)
        assert newest is not None
        other = Policy(model(seed=5), OPTIONS)
        state = load_checkpoint(newest, other)  # verifies every hash
        assert same(weights(other), whole if newest.name == "step-1" else weights(policy))
        assert state == {"n": 1 if newest.name == "step-1" else 2}
        remove_stale(tmp_path)
        assert all(".tmp" not in p.name for p in tmp_path.iterdir())
        if finished:
            break
        moments += 1
    assert moments > 8
    assert newest.name == "step-2"


def test_the_name_is_given_by_one_rename_of_a_whole_folder_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: set[int] = set()
    renamed: list[tuple[str, str]] = []
    real_fsync, real_rename = os.fsync, Path.rename

    def fsync(descriptor: int) -> None:
        flushed.add(os.fstat(descriptor).st_ino)
        real_fsync(descriptor)

    def rename(source: Path, target: Path) -> Path:
        assert not target.exists()
        assert verify_checkpoint(source) == 4
        assert {p.stat().st_ino for p in [*source.rglob("*"), source]} <= flushed
        renamed.append((source.name, target.name))
        flushed.clear()
        return real_rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    save_checkpoint(tmp_path, 4, Policy(model(), OPTIONS), tiny_tokenizer(), {})
    assert renamed == [("step-4.tmp", "step-4")]
    assert tmp_path.stat().st_ino in flushed  # the new name itself


def test_replacing_a_checkpoint_never_shows_half_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy(model(), OPTIONS)
    save_checkpoint(tmp_path, 1, policy, None, {"n": 1})
    save_checkpoint(tmp_path, 2, policy, None, {"n": "old"})
    assert load_checkpoint(save_checkpoint(tmp_path, 2, policy, None, {"n": "new"}), policy) == {"n": "new"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-1", "step-2"]


@pytest.mark.parametrize("place", ["weights", "state", "manifest"])
def test_a_full_disk_leaves_the_earlier_checkpoints(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy(model(), OPTIONS)
    save_checkpoint(tmp_path, 1, policy, None, {})

    def full(*_args: Any, **_options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        target, name = {
            "weights": (policy.model, "save_pretrained"),
            "state": (torch, "save"),
            "manifest": (Path, "write_text"),
        }[place]
        patch.setattr(target, name, full)
        with pytest.raises(OSError, match="No space left on device"):
            save_checkpoint(tmp_path, 2, policy, None, {})
    assert [p.name for p in tmp_path.iterdir()] == ["step-1"]
    assert verify_checkpoint(tmp_path / "step-1") == 1


def test_a_state_that_json_cannot_hold_fails_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path, 1, Policy(model(), OPTIONS), None, {"tensor": torch.zeros(1)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["model.safetensors", "training_state.pt", "config.json"])
def test_damage_is_named(name: str, tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, 1, Policy(model(), OPTIONS), None, {})
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} is damaged \(its sha256 differs\); remove"):
        load_checkpoint(folder, Policy(model(), OPTIONS))
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        verify_checkpoint(folder)


def test_what_is_not_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected a checkpoint folder with a readable checkpoint\.json"):
        verify_checkpoint(tmp_path)
    (tmp_path / "checkpoint.json").write_text('{"format": "other", "version": 1}')
    with pytest.raises(UserError, match="it was written by something else"):
        verify_checkpoint(tmp_path)


def test_another_models_checkpoint_is_refused(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, 1, Policy(model("llama"), OPTIONS), None, {})
    with pytest.raises(UserError, match="holds another model than the run's"):
        load_checkpoint(folder, Policy(model("llama", num_hidden_layers=3), OPTIONS))


def test_latest_and_pruning_go_by_number(tmp_path: Path) -> None:
    assert (latest_checkpoint(tmp_path / "absent"), checkpoint_steps(tmp_path / "absent")) == (None, [])
    for name in ("step-9", "step-10", "step-2", "step-30", "step-11.tmp", "step-x", "notes", "best"):
        (tmp_path / name).mkdir()
    assert checkpoint_steps(tmp_path) == [2, 9, 10, 30]
    assert latest_checkpoint(tmp_path) == tmp_path / "step-30"
    assert [p.name for p in prune_checkpoints(tmp_path, {2, 10, 30, 99})] == ["step-9"]
    assert [p.name for p in prune_checkpoints(tmp_path, {10})] == ["step-2", "step-30"]
    assert [p.name for p in remove_stale(tmp_path)] == ["step-11.tmp"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best", "notes", "step-10", "step-x"]


def test_a_kill_while_pruning_leaves_whole_checkpoints_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before every rename and every removed file in turn."""
    moments, finished = 0, False
    while not finished:
        folder, left = tmp_path / str(moments), moments
        for step in (1, 2, 3):
            (folder / f"step-{step}").mkdir(parents=True)
            for name in ("a", "b"):
                (folder / f"step-{step}" / name).touch()

        def dying(real: Any) -> Any:
            def call(*given: Any, **options: Any) -> Any:
                nonlocal left
                if left == 0:
                    raise Killed
                left -= 1
                return real(*given, **options)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", dying(Path.rename))
            patch.setattr(os, "unlink", dying(os.unlink))
            patch.setattr(os, "rmdir", dying(os.rmdir))
            try:
                prune_checkpoints(folder, {2})
                finished = True
            except Killed:
                pass
        assert all(len(list(p.iterdir())) == 2 for p in folder.iterdir() if not p.name.endswith(".tmp"))
        remove_stale(folder)
        prune_checkpoints(folder, {2})
        assert [p.name for p in folder.iterdir()] == ["step-2"]
        moments += 1
    assert moments > 8


def test_a_kill_between_two_names_gives_the_old_checkpoint_its_name_back(tmp_path: Path) -> None:
    policy = Policy(model(), OPTIONS)
    save_checkpoint(tmp_path, 5, policy, None, {"n": "old"})
    (tmp_path / "step-5").rename(tmp_path / "step-5.old.tmp")  # and then the new one would have taken its place
    (tmp_path / "step-5.tmp").mkdir()
    assert [p.name for p in remove_stale(tmp_path)] == ["step-5.tmp"]
    assert load_checkpoint(tmp_path / "step-5", policy) == {"n": "old"}
