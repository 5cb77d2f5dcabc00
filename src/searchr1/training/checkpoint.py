"""Checkpoints that a kill or a full disk cannot break, and that continue a run bit for bit.

    checkpoints/step-40/   model.safetensors, config.json, tokenizer files   Hugging Face format
                           training_state.pt                                  optimiser, schedule, random states, state
                           checkpoint.json                                    format version, sha256 of every other file
    checkpoints/best/      the same of the best step (``best.py``)

Everything is written to ``step-40.tmp`` and flushed to disk before the folder gets its name, so a folder called
``step-N`` is always whole. ``checkpoint.json`` guards against what happens later (bad copies, bad disks).
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from searchr1.errors import UserError
from searchr1.tokenization import quiet
from searchr1.training.policy import Policy, load_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MANIFEST = "checkpoint.json"
STATE = "training_state.pt"
FORMAT = {"format": "searchr1-checkpoint", "version": 2}


def save_checkpoint(
    folder: Path,
    step: int,
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase | None,
    state: dict[str, Any],
) -> Path:
    """Write ``folder/step-<step>`` and return it; ``state`` is anything that JSON can hold (data position, ...).

    An existing checkpoint of that step is replaced. Raises ``OSError`` (a full disk) and leaves no partial folder.
    """
    final, temporary = folder / f"step-{step}", folder / f"step-{step}.tmp"
    encoded = json.dumps(state)  # before anything is written: a state that is not JSON fails here
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with quiet():
            policy.model.save_pretrained(temporary, state_dict=dict(policy.weights()))
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
        torch.save(
            {"policy": policy.training_state(), "random": _random_states(), "state": encoded},
            temporary / STATE,
        )
        manifest = FORMAT | {"step": step, "sha256": _hashes(temporary)}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        for path in [*temporary.rglob("*"), temporary]:
            flush(path)
        replace_folder(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def load_checkpoint(folder: Path, policy: Policy) -> dict[str, Any]:
    """Bring ``policy`` and the random number generators to where ``folder`` was written; returns its ``state``.

    ``policy.reference`` stays what it is: make the policy from the model that the run started from. Raises
    ``UserError`` when the checkpoint is damaged or belongs to another model.
    """
    verify_checkpoint(folder)
    try:
        saved = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{folder / STATE} cannot be read: {error}") from error
    try:
        if not policy.adapted:  # the weights beside an adapter are those that the run started from
            policy.model.load_state_dict(load_model(folder).state_dict())
        policy.load_training_state(saved["policy"])
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{folder} holds another model than the run's: {str(error).splitlines()[0]}") from error
    _restore_random_states(saved["random"])
    state: dict[str, Any] = json.loads(saved["state"])
    return state


def verify_checkpoint(folder: Path) -> int:
    """The checkpoint's step when all files are there, unchanged; else ``UserError`` naming the first that is not."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder}: expected a checkpoint folder with a readable {MANIFEST}: {error}; remove {folder} to continue "
            "from an earlier checkpoint"
        ) from error
    if not isinstance(manifest, dict) or {key: manifest.get(key) for key in FORMAT} != FORMAT:
        raise UserError(f"{folder / MANIFEST}: expected {FORMAT}; it was written by something else")
    actual = _hashes(folder)
    for name, expected in manifest["sha256"].items():
        if actual.get(name) != expected:
            what = "is missing" if name not in actual else "is damaged (its sha256 differs)"
            raise UserError(f"{folder / name} {what}; remove {folder} to continue from an earlier checkpoint")
    step: int = manifest["step"]
    return step


def checkpoint_steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in ``folder``, ascending; none where it does not exist."""
    return sorted(int(m[1]) for path in folder.glob("step-*") if (m := re.fullmatch(r"step-(\d+)", path.name)))


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the highest step in ``folder``, or None."""
    steps = checkpoint_steps(folder)
    return folder / f"step-{steps[-1]}" if steps else None


def prune_checkpoints(folder: Path, keep: Collection[int]) -> list[Path]:
    """Remove the checkpoints of all other steps than ``keep``; returns what was removed."""
    removed = [folder / f"step-{step}" for step in checkpoint_steps(folder) if step not in keep]
    for path in removed:
        discarded = path.with_name(path.name + ".tmp")  # loses its name first: a kill here leaves no half of it
        shutil.rmtree(discarded, ignore_errors=True)
        path.rename(discarded)
        shutil.rmtree(discarded)
    return removed


def remove_stale(folder: Path) -> list[Path]:
    """Remove what a killed run left half-written; call it when a run starts. Returns what was removed.

    A whole checkpoint that was about to be replaced gets its name back where its successor did not take it yet.
    """
    for old in folder.glob("*.old.tmp"):
        final = old.with_name(old.name.removesuffix(".old.tmp"))
        if not final.exists():
            old.rename(final)
    stale = sorted([*folder.glob("step-*.tmp"), *folder.glob("best*.tmp")])
    for path in stale:
        shutil.rmtree(path)
    return stale


def replace_folder(temporary: Path, final: Path) -> None:
    """Give ``temporary`` its final name, so that at no moment a partial folder has it."""
    if final.exists():
        old = final.with_name(final.name + ".old.tmp")
        shutil.rmtree(old, ignore_errors=True)
        final.rename(old)
        temporary.rename(final)
        shutil.rmtree(old)
    else:
        temporary.rename(final)
    flush(final.parent)


def flush(path: Path) -> None:
    """Have the disk hold what was written to a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file but the manifest, by its path inside ``folder``."""
    result = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        with path.open("rb") as file:
            result[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return result


def _random_states() -> dict[str, Any]:
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": (str(name), [int(key) for key in keys], int(position), int(has_gauss), float(gauss)),
    }


def _restore_random_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
    random.setstate(states["python"])
    name, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
