"""Forward passes of a Hugging Face causal language model over slots: tokens in, last logits out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from searchr1.engines.slots import Ints, SlotCache, rounded
from searchr1.errors import EngineError, UserError, nearest


class Passes:
    """Runs ``model`` on rows of different lengths, each in its own slot.

    ``lengths[slot]`` tokens of a slot are stored. The model is called with a 4-D additive mask (a query sees exactly
    the columns up to its own) and explicit positions, which every architecture with plain causal attention follows
    under ``sdpa`` or ``eager``. New tokens stand at the right end of their batch row, so the last column holds every
    row's last token, and the model itself makes the logits, whatever it does to them. The columns that pad a row on the
    left are written behind its end, where the next tokens overwrite them.
    """

    def __init__(self, model: Any, slots: int) -> None:
        """``slots`` is the most rows there will be; memory grows with use."""
        self.model = model
        self.device: torch.device = model.device
        self.vocabulary_size: int = model.get_input_embeddings().num_embeddings
        self.cache = SlotCache(slots)
        self.lengths: Ints = np.zeros(0, np.int64)

    def reserve(self, slots: int, columns: int) -> None:
        """Room for ``slots`` rows, and for ``columns`` tokens in each."""
        self.cache.reserve(slots, columns)
        if (new := self.cache.slots - len(self.lengths)) > 0:
            self.lengths = np.concatenate([self.lengths, np.zeros(new, np.int64)])

    def prefill(self, slots: Sequence[int], runs: Sequence[Sequence[int]]) -> torch.Tensor:
        """Append ``runs[i]`` to slot ``slots[i]``; the logits after each run's last token [rows, vocabulary]."""
        sizes = np.array([len(run) for run in runs])
        width = int(sizes.max())
        tokens = np.zeros((len(runs), width), np.int64)
        for row, run in zip(tokens, runs, strict=True):
            row[width - len(run) :] = run
        start = self.lengths[list(slots)][:, None]
        place = np.arange(width)[None, :] - (width - sizes[:, None])
        write = start + np.where(place < 0, sizes[:, None] + np.arange(width)[None, :], place)
        positions = np.where(place < 0, 0, write)
        columns = rounded(int(start.max()) + width)
        self.reserve(0, columns)
        logits = self._forward(torch.tensor(slots, device=self.device), tokens, write, positions, columns)
        self.lengths[list(slots)] += sizes
        return logits

    def decode(self, tokens: Ints, active: Sequence[int]) -> torch.Tensor:
        """One more token, ``tokens[slot]``, for each of the first ``len(tokens)`` slots; logits of the ``active`` ones.

        The slots between them compute along and are ignored: what they write lies behind their end.
        """
        count = len(tokens)
        chosen = list(active)
        write = self.lengths[:count]
        columns = rounded(int(write[chosen].max()) + 1)
        self.reserve(0, max(columns, int(write.max()) + 1))
        place = write[:, None]
        logits = self._forward(slice(0, count), tokens[:, None], place, np.minimum(place, columns - 1), columns)
        self.lengths[chosen] += 1
        return logits if len(chosen) == count else logits[chosen]

    def swap(self, left: list[int], right: list[int]) -> None:
        """Exchange slots."""
        if left:
            self.cache.swap(left, right, int(self.lengths[left + right].max()))
            self.lengths[left], self.lengths[right] = self.lengths[right], self.lengths[left]

    def _forward(
        self, rows: slice | torch.Tensor, tokens: Ints, write: Ints, positions: Ints, columns: int
    ) -> torch.Tensor:
        to = self.device
        place = torch.from_numpy(write).to(to)
        self.cache.aim(rows, place, columns)
        dtype = self.model.dtype
        hidden = torch.arange(columns, device=to) > place[:, None, :, None]
        mask = torch.zeros(hidden.shape, dtype=dtype, device=to).masked_fill_(hidden, torch.finfo(dtype).min)
        output = self.model(
            input_ids=torch.from_numpy(tokens).to(to),
            attention_mask=mask,
            position_ids=torch.from_numpy(positions).to(to),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits


@torch.inference_mode()
def check_model(model: Any) -> None:
    """Raise ``UserError`` unless slots give the logits of a plain forward pass on a short random context.

    Two rows of unequal length are prefilled and decoded. Recurrent layers, attention that ignores the mask and windows
    shorter than the context are what fails here.
    """
    passes = Passes(model, 2)
    generator = np.random.default_rng(0)
    texts = [generator.integers(0, passes.vocabulary_size, size).tolist() for size in (13, 10)]
    try:
        passes.reserve(2, 16)
        passes.prefill([0, 1], [text[:5] for text in texts])
        passes.prefill([1], [texts[1][5:9]])
        passes.prefill([0], [texts[0][5:12]])
        ours = passes.decode(np.array([text[-1] for text in texts]), [0, 1])
        plain = [model(input_ids=torch.tensor([text], device=model.device)).logits[0, -1] for text in texts]
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(_UNFIT.format(kind=type(model).__name__, reason=f"a pass failed: {error}")) from error
    theirs = torch.stack(plain)
    spread = float(theirs.float().std())
    error_ = float((ours - theirs).float().abs().max())
    if not error_ <= spread * (1e-3 if model.dtype == torch.float32 else 0.15):
        reason = f"its logits differ from a plain forward pass by {error_:.3g} (their spread is {spread:.3g})"
        raise UserError(_UNFIT.format(kind=type(model).__name__, reason=reason))


_UNFIT = (
    "the local engine expects a causal language model with plain causal attention, loaded with "
    "attn_implementation='sdpa' or 'eager', and cannot run this {kind}: {reason}"
)


def check_window(config: Any, max_length: int) -> None:
    """Raise ``UserError`` when some layer attends to fewer tokens than ``max_length``."""
    window = getattr(config, "sliding_window", None)
    layers = getattr(config, "layer_types", None)
    slides = "sliding_attention" in layers if layers else getattr(config, "use_sliding_window", True)
    if window and slides and window < max_length:
        raise UserError(
            f"this model attends within a sliding window of {window} tokens and the local engine was asked for "
            f"contexts of {max_length}: set max_length to at most {window}, or serve the model with another engine"
        )


def copy_weights(model: Any, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Copy named tensors into the model's own, in place; no tensors at all means that the caller changed them already.

    Raises ``EngineError`` for an unknown name or another shape, and when some parameter was left out; what came before
    the error has been copied, so load a complete set before generating again.
    """
    own = model.state_dict()
    seen: set[int] = set()
    with torch.no_grad():
        for name, tensor in weights:
            target = own.get(name)
            if target is None:
                raise EngineError(f"the new weights hold {name!r}, which the model does not{nearest(name, own)}")
            if target.shape != tensor.shape:
                raise EngineError(f"{name} has shape {tuple(target.shape)}, the new weights {tuple(tensor.shape)}")
            target.copy_(tensor)
            seen.add(target.data_ptr())
    missing = [name for name, parameter in model.named_parameters() if parameter.data_ptr() not in seen]
    if seen and missing:
        raise EngineError(
            f"the new weights lack {len(missing)} of the model's tensors, {missing[0]} first; send them all"
        )
