"""Keys and values of many dialogues in one tensor per layer: a row ("slot") each, kept from turn to turn."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers.cache_utils import Cache

Ints = npt.NDArray[np.int64]
STEP = 32
"""Columns come in multiples of this, so that few distinct shapes occur."""


def rounded(columns: int) -> int:
    """``columns`` rounded up to a multiple of ``STEP``.

    >>> rounded(33)
    64
    """
    return -(-columns // STEP) * STEP


class SlotCache(Cache):
    """A cache that writes each row's new keys at that row's own positions and hands out views.

    Before each forward pass ``aim`` says which slots the batch's rows are, where their new tokens go and how many
    columns the pass reads. Layers are made at their first ``update`` (their heads and sizes are known only then) and
    grow in rows and columns as needed: memory follows use. New memory is zero, because a masked NaN would still spoil a
    sum.
    """

    def __init__(self, limit: int) -> None:
        """``limit`` bounds the rows that doubling makes."""
        super().__init__(layers=[])
        self.limit = limit
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        """Per layer [slots, heads, columns, size]."""
        self.slots = 0
        self.columns = 0
        self._rows: slice | torch.Tensor = slice(0)
        self._write = torch.empty(0)
        self._read = 0
        self._index: dict[int, torch.Tensor] = {}
        """Where the pass's keys go in a layer's flat store, by the layer's number of heads."""

    def reserve(self, slots: int, columns: int) -> None:
        """Make room for ``slots`` rows of ``columns`` tokens; what is stored stays."""
        if slots <= self.slots and columns <= self.columns:
            return
        if slots > self.slots:
            self.slots = max(slots, min(2 * self.slots, self.limit))
        if columns > self.columns:
            self.columns = rounded(max(columns, self.columns * 3 // 2))
        for stores in (self.keys, self.values):
            stores[:] = map(self._grown, stores)

    def aim(self, rows: slice | torch.Tensor, write: torch.Tensor, read: int) -> None:
        """The next pass's batch is ``rows`` (the first slots, or slot numbers [batch]); its new tokens go to columns
        ``write`` [batch, new] and it reads the first ``read`` columns."""
        self._rows = rows
        self._write = write
        self._read = read
        self._index.clear()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store ``key_states`` and ``value_states`` [batch, heads, new, size] and return all columns that are read."""
        while len(self.keys) <= layer_idx:
            self.keys.append(self._fresh(key_states))
            self.values.append(self._fresh(value_states))
        return self._put(self.keys[layer_idx], key_states), self._put(self.values[layer_idx], value_states)

    def swap(self, left: list[int], right: list[int], columns: int) -> None:
        """Exchange the first ``columns`` columns of slots ``left[i]`` and ``right[i]``."""
        for tensor in (*self.keys, *self.values):
            a, b = (torch.tensor(slots, device=tensor.device) for slots in (left, right))
            view = tensor[:, :, :columns]
            kept = view[a]
            view[a] = view[b]
            view[b] = kept

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Rows differ in length; callers pass positions themselves."""
        return 0

    def _put(self, store: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        slots, heads, columns, size = store.shape
        flat = store.view(slots * heads * columns, size)
        flat.index_copy_(0, self._places(heads), states.reshape(-1, size).to(store.dtype))
        if isinstance(self._rows, slice):
            return store[self._rows, :, : self._read]
        return store[:, :, : self._read].index_select(0, self._rows)

    def _places(self, heads: int) -> torch.Tensor:
        if heads not in self._index:
            write = self._write
            rows = torch.arange(len(write), device=write.device) if isinstance(self._rows, slice) else self._rows
            row_heads = rows[:, None] * heads + torch.arange(heads, device=write.device)
            self._index[heads] = (row_heads[:, :, None] * self.columns + write[:, None, :]).reshape(-1)
        return self._index[heads]

    def _fresh(self, states: torch.Tensor) -> torch.Tensor:
        _, heads, _, size = states.shape
        return torch.zeros(self.slots, heads, self.columns, size, dtype=states.dtype, device=states.device)

    def _grown(self, old: torch.Tensor) -> torch.Tensor:
        slots, heads, columns, size = old.shape
        new = torch.zeros(self.slots, heads, self.columns, size, dtype=old.dtype, device=old.device)
        new[:slots, :, :columns] = old
        return new
