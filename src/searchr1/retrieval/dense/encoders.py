"""From texts to vectors whose inner product is their similarity.

A passage is encoded as its prefix, its title, a newline and its text. The WordPiece tokenizers of the families below
read a newline as a space, so this is the ``title text`` that E5, BGE, GTE and Contriever were trained and evaluated
with.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from searchr1.errors import UserError
from searchr1.retrieval.dense.runtimes import Device, Pooling, Runtime, RuntimeName, choose_runtime
from searchr1.types import Passage

_DOWNLOADED = ["*.json", "*.txt", "*.model", "*.safetensors", "*/config.json", "onnx/model.onnx"]
_KNOWN_MODULES = {"Transformer", "Pooling", "Normalize"}


@dataclass(frozen=True, slots=True)
class Family:
    """How the models of one family were trained to be asked."""

    query_prefix: str = ""
    passage_prefix: str = ""
    pooling: Pooling = "mean"
    normalize: bool = True


FAMILIES = {
    "e5-": Family("query: ", "passage: "),  # Wang et al. 2022, arXiv:2212.03533
    "bge-m3": Family(pooling="cls"),  # Chen et al. 2024, arXiv:2402.03216: no instruction
    "bge-": Family("Represent this sentence for searching relevant passages: ", pooling="cls"),  # arXiv:2309.07597
    "contriever": Family(normalize=False),  # Izacard et al. 2021, arXiv:2112.09118: inner product
    "gte-": Family(),  # Li et al. 2023, arXiv:2308.03281
    "minilm": Family(),  # Reimers and Gurevych 2019, arXiv:1908.10084
}
"""Part of a model's name in lower case -> its family; the first that matches counts."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the vectors of a text depend on, but for the weights."""

    query_prefix: str
    passage_prefix: str
    pooling: Pooling
    normalize: bool
    max_length: int
    """Tokens, those that the tokenizer adds included; longer texts are cut."""


class Encoder:
    """One model, ready to run. ``fingerprint`` differs where the vectors of the passages differ.

    The two runtimes agree to about 1e-6, so vectors of the one serve the other: the runtime is not in the fingerprint.
    Any thread may encode; one does at a time.
    """

    def __init__(self, settings: Settings, runtime: Runtime, fingerprint: str) -> None:
        self.settings = settings
        self.dimension = runtime.dimension
        self.fingerprint = fingerprint
        self._runtime = runtime
        self._lock = threading.Lock()

    def encode_queries(self, queries: Sequence[str]) -> npt.NDArray[np.float32]:
        """One row a query, ``[queries, dimension]``."""
        return self._encode([self.settings.query_prefix + query for query in queries])

    def encode_passages(self, passages: Sequence[Passage]) -> npt.NDArray[np.float32]:
        """One row a passage, ``[passages, dimension]``."""
        return self._encode([f"{self.settings.passage_prefix}{p.title}\n{p.text}" for p in passages])

    def _encode(self, texts: list[str]) -> npt.NDArray[np.float32]:
        if not texts:
            return np.empty((0, self.dimension), dtype=np.float32)
        with self._lock:
            return self._runtime.encode(texts)


@lru_cache(maxsize=2)
def load_encoder(
    name: str,
    *,
    runtime: RuntimeName = "auto",
    device: Device = "auto",
    batch_size: int = 32,
    max_length: int = 256,
    query_prefix: str | None = None,
    passage_prefix: str | None = None,
    option: str = "encoder",
) -> Encoder:
    """The encoder in a folder, or of that name on the Hugging Face hub; loaded once a process.

    A prefix of None is that of the model's family or, for a model of none, what its own files say. Raises UserError
    for a model that cannot be had or run, and for a library that is missing; ``option`` is what the user named it by.
    """
    folder = model_folder(name, option)
    settings = settings_of(folder, name, max_length, query_prefix, passage_prefix)
    weights = _hash_of_weights(folder, option)
    load = choose_runtime(folder, runtime, device)
    running = load(folder, settings.pooling, settings.normalize, settings.max_length, batch_size, weights)
    shaping = (weights, settings.passage_prefix, settings.pooling, settings.normalize, settings.max_length)
    return Encoder(settings, running, hashlib.sha256(repr(shaping).encode()).hexdigest())


def family_of(name: str) -> Family | None:
    """The family of a model's name or folder; None where it is unknown.

    >>> family_of("intfloat/e5-base-v2").query_prefix, family_of("BAAI/bge-base-en-v1.5").pooling
    ('query: ', 'cls')
    >>> family_of("mine/encoder") is None
    True
    """
    model = Path(name).name.lower()
    return next((family for part, family in FAMILIES.items() if part in model), None)


def model_folder(name: str, option: str = "encoder") -> Path:
    """The folder of a model, downloaded if it is none and was not before.

    Raises UserError, which names the ``option`` that the model was given as.
    """
    if name and Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        try:
            folder = Path(snapshot_download(name, allow_patterns=_DOWNLOADED, local_files_only=True))
            if _weights(folder):
                return folder
        except LocalEntryNotFoundError:
            pass  # not on this machine yet
        folder = Path(snapshot_download(name, allow_patterns=_DOWNLOADED))
        if not _weights(folder):
            folder = Path(snapshot_download(name, allow_patterns=[*_DOWNLOADED, "pytorch_model.bin"]))
        return folder
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{option}: expected the folder of a model or its name on the Hugging Face hub, got {name!r} ({reason}); "
            f"correct `{option}`, or download the model and give its folder"
        ) from error


def settings_of(
    folder: Path, name: str, max_length: int, query_prefix: str | None = None, passage_prefix: str | None = None
) -> Settings:
    """What the user says, else what the family is known for, else what the model's files say. Raises UserError.

    Pooling and normalisation are the files' where they say them: they belong to these weights.
    """
    family = family_of(name) or family_of(str(_json(folder / "config.json").get("_name_or_path", "")))
    prompts = _json(folder / "config_sentence_transformers.json").get("prompts") or {}
    own = Family(prompts.get("query") or "", prompts.get("passage") or prompts.get("document") or "")
    asked = family or own
    pooling, normalize = _pooling(folder) or (asked.pooling, asked.normalize)
    positions = _json(folder / "config.json").get("max_position_embeddings", max_length)
    if not 1 <= max_length <= positions:
        raise UserError(f"max_length: expected 1 to {positions} tokens, what {name} can read, got {max_length}")
    return Settings(
        query_prefix=asked.query_prefix if query_prefix is None else query_prefix,
        passage_prefix=asked.passage_prefix if passage_prefix is None else passage_prefix,
        pooling=pooling,
        normalize=normalize,
        max_length=max_length,
    )


def _pooling(folder: Path) -> tuple[Pooling, bool] | None:
    """Pooling and normalisation in the form of sentence-transformers; None for a plain model."""
    modules = _json(folder / "modules.json")
    if not modules:
        return None
    kinds = {str(module["type"]).rpartition(".")[2]: str(module["path"]) for module in modules}
    pooling = _json(folder / kinds.get("Pooling", "") / "config.json")
    mode = pooling.get("pooling_mode")
    how: Literal["mean", "cls", "other"] = "other"
    if kinds.keys() <= _KNOWN_MODULES:
        if mode == "mean" or pooling.get("pooling_mode_mean_tokens"):
            how = "mean"
        elif mode == "cls" or pooling.get("pooling_mode_cls_token"):
            how = "cls"
    return how, "Normalize" in kinds


def _weights(folder: Path) -> list[Path]:
    for pattern in ("*.safetensors", "pytorch_model.bin", "onnx/model.onnx", "model.onnx"):
        if found := sorted(folder.glob(pattern)):
            return found
    return []


def _hash_of_weights(folder: Path, option: str) -> str:
    weights = _weights(folder)
    if not weights:
        raise UserError(f"{option}: {folder} holds no weights (model.safetensors, pytorch_model.bin or model.onnx)")
    digest = hashlib.sha256()
    for path in [*weights, folder / "tokenizer.json"]:
        if path.is_file():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _json(path: Path) -> Any:
    """What a file of the model says; an empty table where it is missing."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        raise UserError(f"encoder: {path} cannot be read: {error}") from error
