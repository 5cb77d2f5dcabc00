"""What runs an encoder: PyTorch (by sentence-transformers) or, faster on a CPU, ONNX Runtime."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from searchr1.errors import UserError
from searchr1.machine import usable_cores
from searchr1.tokenization import quiet

if TYPE_CHECKING:
    import torch

RuntimeName: TypeAlias = Literal["auto", "torch", "onnx"]
Device: TypeAlias = Literal["auto", "cpu", "cuda"]
Pooling: TypeAlias = Literal["mean", "cls", "other"]
"""``other`` is what only sentence-transformers knows how to do."""
Floats: TypeAlias = npt.NDArray[np.float32]
_GPU_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
_BATCH_TOKENS = 256  # of one run on a CPU: passages take half the time in twos that they take in batches of 32
_SAME = 1e-3  # an exported model differs by 1e-6 where the export is right


class Runtime(Protocol):
    """A loaded model."""

    dimension: int

    def encode(self, texts: list[str]) -> Floats:
        """One row a text, ``[texts, dimension]``; ``texts`` is not empty."""


Loader: TypeAlias = Callable[[Path, Pooling, bool, int, int, str], Runtime]
"""Folder, pooling, normalize, max_length, batch_size and a hash of the weights -> the model, loaded."""


def choose_runtime(folder: Path, runtime: RuntimeName, device: Device) -> Loader:
    """What loads the model. Raises UserError where device and runtime do not go together.

    ``auto`` is PyTorch on a GPU; on a CPU it is ONNX Runtime where the model comes with an ONNX file.
    """
    if runtime == "onnx":
        if device == "cuda":
            raise UserError("runtime: onnx runs on the CPU, and device is 'cuda'; set runtime = 'torch', or device")
        return OnnxModel
    on_gpu = device == "cuda" or (device == "auto" and _has_gpu())
    if runtime == "auto" and not on_gpu and onnx_file(folder) is not None and _installed("onnxruntime"):
        return OnnxModel
    return lambda *how: TorchModel("cuda" if on_gpu else "cpu", *how)


def cpu_threads() -> int:
    """How many threads numerical code may use: PyTorch's number where it is in use, else ``OMP_NUM_THREADS``."""
    if "torch" in sys.modules:
        return int(sys.modules["torch"].get_num_threads())
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdecimal() and int(asked) else usable_cores()


def onnx_file(folder: Path) -> Path | None:
    """The ONNX file that comes with a model."""
    return next((path for path in (folder / "onnx/model.onnx", folder / "model.onnx") if path.is_file()), None)


class TorchModel:
    """A model of sentence-transformers."""

    def __init__(
        self, device: str, folder: Path, pooling: Pooling, normalize: bool, max_length: int, batch_size: int, _: str
    ) -> None:
        try:
            from safetensors import SafetensorError
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise missing(error) from error
        try:
            with quiet():
                self._model = SentenceTransformer(str(folder), device=device)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"encoder: {folder} cannot be loaded on {device}: {reason}") from error
        if not (folder / "modules.json").is_file():  # then the pooling is a guess
            for module in self._model.children():
                if hasattr(module, "pooling_mode"):
                    setattr(module, "pooling_mode", pooling)  # noqa: B010  torch types any attribute as a module
        self._model.max_seq_length = max_length
        self._normalize, self._batch_size = normalize, batch_size
        self.dimension = self.encode(["a"]).shape[1]

    def encode(self, texts: list[str]) -> Floats:
        found = self._model.encode(
            texts,
            prompt="",
            batch_size=self._batch_size,
            normalize_embeddings=self._normalize,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return np.asarray(found, dtype=np.float32)


class OnnxModel:
    """A transformer in ONNX Runtime, pooled here; texts of like length share a batch, so little is padding."""

    def __init__(
        self, folder: Path, pooling: Pooling, normalize: bool, max_length: int, batch_size: int, weights: str
    ) -> None:
        if pooling == "other":
            raise UserError(f"runtime: {folder} pools in a way that only runtime = 'torch' knows")
        try:
            import onnxruntime
        except ImportError as error:
            raise missing(error) from error
        from tokenizers import Tokenizer

        if not (folder / "tokenizer.json").is_file():
            raise UserError(f"runtime: {folder} has no tokenizer.json, which onnx needs; set runtime = 'torch'")
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._padding_id = (self._tokenizer.padding or {}).get("pad_id", 0)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = cpu_threads(), 1
        options.log_severity_level = 3  # errors
        path = onnx_file(folder) or export(folder, weights)
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = {node.name for node in self._session.get_inputs()}
        self._pooling, self._normalize, self._batch_size = pooling, normalize, batch_size
        self.dimension = self.encode(["a"]).shape[1]

    def encode(self, texts: list[str]) -> Floats:
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(texts)]
        order = sorted(range(len(texts)), key=lambda i: len(tokens[i]))
        batches: list[list[int]] = [[]]
        for i in order:  # ever longer: the last one of a batch says how wide it is
            if len(batches[-1]) == self._batch_size or (len(batches[-1]) + 1) * len(tokens[i]) > _BATCH_TOKENS:
                batches.append([])
            batches[-1].append(i)
        vectors = np.concatenate([self._encode([tokens[i] for i in batch]) for batch in batches if batch])
        found = np.empty_like(vectors)
        found[order] = vectors
        return found

    def _encode(self, tokens: list[list[int]]) -> Floats:
        longest = max(map(len, tokens))
        ids = np.full((len(tokens), longest), self._padding_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, one in enumerate(tokens):
            ids[row, : len(one)] = one
            mask[row, : len(one)] = 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = self._session.run(None, {name: feed[name] for name in self._inputs})[0]
        return pool(hidden, mask, self._pooling, self._normalize)


def pool(hidden: Floats, mask: npt.NDArray[np.int64], pooling: Pooling, normalize: bool) -> Floats:
    """``[texts, tokens, dimension]`` to ``[texts, dimension]``: the first token, or the mean of those in the mask.

    >>> pool(np.array([[[3.0, 0.0], [3.0, 8.0], [9.0, 9.0]]], np.float32), np.array([[1, 1, 0]]), "mean", True).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """
    if pooling == "cls":
        vectors = hidden[:, 0]
    else:
        weights = mask[:, :, None].astype(np.float32)
        vectors = (hidden * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1.0)
    if normalize:
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return np.asarray(vectors, dtype=np.float32)


def export(folder: Path, weights: str) -> Path:
    """The model as an ONNX file in the user's cache, made there if need be (a few seconds). Raises UserError."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "searchr1" / "onnx"
    path = cache / f"{weights}.onnx"
    if path.is_file():
        return path
    try:
        import onnx  # noqa: F401  torch.onnx needs it
        import torch
        from transformers import AutoModel
    except ImportError as error:
        raise UserError(
            f"runtime: {folder} comes without onnx/model.onnx, and making it needs a library ({error}): "
            "pip install onnx, or set runtime = 'torch'"
        ) from error
    with quiet():
        model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    cache.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        _export(model, part)
        os.replace(part, path)
    except (RuntimeError, TypeError, ValueError) as error:  # what torch.onnx raises
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"runtime: {folder} cannot be exported to ONNX ({reason}); set runtime = 'torch'") from error
    finally:
        part.unlink(missing_ok=True)
    return path


def _export(model: Any, path: Path) -> None:
    import onnxruntime
    import torch

    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            hidden: torch.Tensor = self.model(**dict(zip(names, inputs, strict=True))).last_hidden_state
            return hidden

    names = ["input_ids", "attention_mask"]
    if getattr(model.config, "type_vocab_size", 0) > 1:
        names.append("token_type_ids")
    shape = {name: {0: "texts", 1: "tokens"} for name in [*names, "last_hidden_state"]}
    hidden = Hidden().eval()

    def inputs(texts: int, tokens: int) -> tuple[torch.Tensor, ...]:
        mask = torch.ones(texts, tokens, dtype=torch.long)
        mask[0, tokens // 2 :] = 0
        return (torch.full((texts, tokens), 7), mask, torch.zeros_like(mask))[: len(names)]

    # The older exporter: it needs no more than `onnx`, writes one file, and is six times faster than the newer one.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            hidden,
            inputs(2, 6),
            str(path),
            input_names=names,
            output_names=["last_hidden_state"],
            dynamic_axes=shape,
            dynamo=False,
        )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    probe = inputs(3, 11)  # of another shape: what a trace takes for constant shows
    ours = session.run(None, {name: tensor.numpy() for name, tensor in zip(names, probe, strict=True)})[0]
    with torch.no_grad():
        difference = float(np.abs(ours - hidden(*probe).numpy())[probe[1].numpy() > 0].max())
    if not difference < _SAME:
        raise ValueError(f"the exported model differs by {difference:.2g}")


def missing(error: ImportError) -> UserError:
    """For an optional library that is not there."""
    return UserError(f"dense search needs a library that is not installed ({error}): pip install 'searchr1[dense]'")


def _has_gpu() -> bool:
    """Whether PyTorch sees a GPU; where the system has none, PyTorch, which takes seconds to load, is not asked."""
    if not any(map(os.path.exists, _GPU_FILES)):
        return False
    import torch

    return torch.cuda.is_available()


def _installed(library: str) -> bool:
    from importlib.util import find_spec

    return find_spec(library) is not None
