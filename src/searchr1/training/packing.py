"""Samples -> rows of tokens: several samples stand in one row and none of them sees another.

Which tokens are trained comes from ``Sample.mask`` alone, never from token values: a padding id that is also the
end-of-sequence id, or that was sampled, changes nothing. What leaves here for a loss are flat tensors of the trained
tokens, in sample order, so that the order does not depend on where a sample was placed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from searchr1.errors import UserError
from searchr1.types import Sample


@dataclass(frozen=True, slots=True, eq=False)
class PackedBatch:
    """One micro-batch of an optimiser step: ``R`` rows of ``L`` tokens, ``N`` trained tokens in them.

    ``segment_ids`` [R, L] is the sample a token belongs to (-1: padding); ``position_ids`` restart with every sample.
    The hidden state at flat position ``index_N`` (row * L + column) predicts the trained token ``targets_N``.
    ``flat_N`` is the trained token's number among those of all samples that were packed together: what
    ``advantages_N``, ``reference_N`` and the rest were gathered by, and what scatters scores back. ``action_N``
    numbers the runs of consecutive trained tokens. ``total_tokens`` and ``total_samples`` count the trained tokens and
    the samples of all micro-batches of the step.
    """

    input_ids: Tensor
    position_ids: Tensor
    segment_ids: Tensor
    index_N: Tensor
    targets_N: Tensor
    flat_N: Tensor
    sample_N: Tensor
    action_N: Tensor
    behaviour_N: Tensor
    advantages_N: Tensor
    reference_N: Tensor
    trainer_N: Tensor
    returns_N: Tensor
    values_N: Tensor
    weights_N: Tensor
    total_tokens: int
    total_samples: int

    def to(self, device: torch.device | str) -> PackedBatch:
        """The same batch with its tensors on ``device``."""
        values = [(f.name, getattr(self, f.name)) for f in fields(self)]
        moved: dict[str, Any] = {name: value.to(device) for name, value in values if isinstance(value, Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True, slots=True)
class _Piece:
    """What one sample puts into a row: its tokens up to the one that predicts its last trained token."""

    sample: int
    token_ids: tuple[int, ...]
    trained: tuple[int, ...]
    """Positions of its trained tokens; the first is never 0."""
    first_flat: int
    """Number of its first trained token among those of all samples."""


def pack(
    samples: Sequence[Sample],
    *,
    advantages_N: Tensor | None = None,
    reference_N: Tensor | None = None,
    trainer_N: Tensor | None = None,
    returns_N: Tensor | None = None,
    values_N: Tensor | None = None,
    row_length: int = 0,
    max_tokens: int = 4096,
    total_tokens: int | None = None,
    total_samples: int | None = None,
) -> list[PackedBatch]:
    """Pack one optimiser step's samples into micro-batches of at most ``max_tokens`` tokens, padding included.

    First-fit decreasing into rows of max(``row_length``, longest sample) tokens; each micro-batch is then cut to its
    own longest row. Rows are as short as they can be by default: attention costs the square of the row. Tokens after
    the last trained one are left out (nothing trained depends on them), and so are samples without a trained token.
    ``advantages_N`` and the other tensors hold one value per trained token of all samples, in sample order (without:
    zeros for advantages, none for the others); ``total_tokens`` and ``total_samples`` are the denominators of the
    loss when other ranks hold more of the step.

    >>> a = Sample((5, 6, 7, 8), (False, True, False, True), (0.0, -1.0, 0.0, -2.0), 1.0, "q")
    >>> b = Sample((9, 4), (False, True), (0.0, -3.0), 0.0, "q")
    >>> [batch] = pack([a, b], row_length=4)
    >>> batch.input_ids.tolist(), batch.segment_ids.tolist(), batch.position_ids.tolist()
    ([[5, 6, 7, 9]], [[0, 0, 0, 1]], [[0, 1, 2, 0]])
    >>> batch.index_N.tolist(), batch.targets_N.tolist(), batch.sample_N.tolist()
    ([0, 2, 3], [6, 8, 4], [0, 0, 1])

    Raises ``ValueError`` when a sample's first token is to be trained (nothing predicts it) or a tensor has the wrong
    length, and ``UserError`` when a sample is longer than ``max_tokens``.
    """
    pieces, trained = _pieces(samples)
    given = {
        "advantages_N": torch.zeros(trained) if advantages_N is None else advantages_N,
        "reference_N": reference_N,
        "trainer_N": trainer_N,
        "returns_N": returns_N,
        "values_N": values_N,
    }
    per_token: dict[str, Tensor] = {}
    for name, values in given.items():
        if values is not None and len(values) not in (0, trained):
            raise ValueError(f"expected {name} to have one entry per trained token ({trained}), got {len(values)}")
        per_token[name] = torch.zeros(0) if values is None else values.float()
    longest = max((len(p.token_ids) for p in pieces), default=0)
    if longest > max_tokens:
        sample = max(pieces, key=lambda p: len(p.token_ids)).sample
        raise UserError(
            f"sample {sample} needs {longest} tokens in a row, more than a micro-batch has: raise "
            f"training.micro_batch_tokens = {max_tokens}, or shorten the trajectories"
        )
    rows = _fill_rows(pieces, max(longest, min(row_length, max_tokens)))
    tokens = trained if total_tokens is None else total_tokens
    counted = len(pieces) if total_samples is None else total_samples
    return [_collate(samples, chunk, per_token, tokens, counted) for chunk in _micro_batches(rows, max_tokens)]


def _pieces(samples: Sequence[Sample]) -> tuple[list[_Piece], int]:
    """Pieces of the samples that have trained tokens, and the number of trained tokens."""
    pieces, flat = [], 0
    for number, sample in enumerate(samples):
        if not len(sample.token_ids) == len(sample.mask) == len(sample.logprobs):
            raise ValueError(
                f"sample {number}: expected as many mask and log-probability entries as tokens "
                f"({len(sample.token_ids)}), got {len(sample.mask)} and {len(sample.logprobs)}"
            )
        trained = tuple(i for i, is_trained in enumerate(sample.mask) if is_trained)
        if not trained:
            continue
        if trained[0] == 0:
            raise ValueError(f"sample {number}: its first token is marked as trained, but nothing predicts it")
        pieces.append(_Piece(number, sample.token_ids[: trained[-1]], trained, flat))
        flat += len(trained)
    return pieces, flat


def _length(row: Sequence[_Piece]) -> int:
    return sum(len(piece.token_ids) for piece in row)


def _fill_rows(pieces: Sequence[_Piece], capacity: int) -> list[list[_Piece]]:
    """First-fit decreasing; the longest rows first."""
    rows: list[list[_Piece]] = []
    free: list[int] = []
    for piece in sorted(pieces, key=lambda p: (-len(p.token_ids), p.sample)):
        need = len(piece.token_ids)
        place = next((i for i, left in enumerate(free) if left >= need), None)
        if place is None:
            rows.append([])
            free.append(capacity)
            place = -1
        rows[place].append(piece)
        free[place] -= need
    return sorted(rows, key=_length, reverse=True)


def _micro_batches(rows: Sequence[list[_Piece]], max_tokens: int) -> list[list[list[_Piece]]]:
    """Consecutive rows, longest first, as many as fit into ``max_tokens`` when padded to the first of them."""
    chunks: list[list[list[_Piece]]] = []
    for row in rows:
        if chunks and (len(chunks[-1]) + 1) * _length(chunks[-1][0]) <= max_tokens:
            chunks[-1].append(row)
        else:
            chunks.append([row])
    return chunks


def _collate(
    samples: Sequence[Sample],
    rows: Sequence[Sequence[_Piece]],
    per_token: Mapping[str, Tensor],
    total_tokens: int,
    total_samples: int,
) -> PackedBatch:
    width = _length(rows[0])
    input_ids = torch.zeros(len(rows), width, dtype=torch.long)
    position_ids = torch.zeros_like(input_ids)
    segment_ids = torch.full_like(input_ids, -1)
    placed: list[tuple[_Piece, int]] = []
    for r, row in enumerate(rows):
        start = 0
        for piece in row:
            end = start + len(piece.token_ids)
            input_ids[r, start:end] = torch.tensor(piece.token_ids)
            position_ids[r, start:end] = torch.arange(end - start)
            segment_ids[r, start:end] = piece.sample
            placed.append((piece, r * width + start))
            start = end
    placed.sort(key=lambda item: item[0].sample)
    tokens = [(samples[piece.sample], piece.sample, at) for piece, _ in placed for at in piece.trained]
    flat_N = torch.tensor([p.first_flat + i for p, _ in placed for i in range(len(p.trained))], dtype=torch.long)
    return PackedBatch(
        input_ids=input_ids,
        position_ids=position_ids,
        segment_ids=segment_ids,
        index_N=torch.tensor([start + at - 1 for piece, start in placed for at in piece.trained], dtype=torch.long),
        targets_N=torch.tensor([sample.token_ids[at] for sample, _, at in tokens], dtype=torch.long),
        flat_N=flat_N,
        sample_N=torch.tensor([number for _, number, _ in tokens], dtype=torch.long),
        action_N=torch.tensor(_actions(placed), dtype=torch.long),
        behaviour_N=torch.tensor([sample.logprobs[at] for sample, _, at in tokens], dtype=torch.float32),
        weights_N=torch.tensor([sample.weight for sample, _, _ in tokens], dtype=torch.float32),
        total_tokens=total_tokens,
        total_samples=total_samples,
        **{name: values[flat_N] if len(values) else values for name, values in per_token.items()},
    )


def _actions(placed: Sequence[tuple[_Piece, int]]) -> list[int]:
    """For every trained token the number of its run: a new one where a sample begins or an observation intervened."""
    numbers, number = [], -1
    for piece, _ in placed:
        before = -1
        for at in piece.trained:
            number += at != before + 1 or before < 0
            numbers.append(number)
            before = at
    return numbers
