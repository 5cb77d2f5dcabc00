"""Faiss indexes that others publish, as the E5 ones of Search-R1 (``e5_Flat.index``, ``e5_HNSW64.index``).

Such a file may have 60 GB. It is neither copied nor linked: the index folder remembers its absolute path, size and time
of last change, and says so when another file lies there. It is mapped into memory, so opening it takes no time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from searchr1.errors import UserError
from searchr1.retrieval.dense.layouts import load_faiss, open_file

_LEAST_SEARCH = 128  # of HNSW; a file carries 16 unless its maker chose otherwise, which is for one nearest, not ten
_LEAST_PROBES = 32


def check_published(path: str, passages: int, dimension: int, seen: tuple[int, int] | None = None) -> Any:
    """The index in a file, mapped. ``seen``: the size and time of last change (ns) that it should still have.

    Raises UserError when it is not a faiss index by inner product of so many passages and dimensions.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"faiss_file: there is no file {path}; put it back, or build the index again")
    status = file.stat()
    if seen is not None and (status.st_size, status.st_mtime_ns) != seen:
        raise UserError(f"faiss_file: {path} has changed since the index was built; build it again")
    index = open_file(file)
    if index.ntotal != passages:
        raise UserError(f"faiss_file: expected {passages} vectors, one a passage, got {index.ntotal} in {path}")
    if index.d != dimension:
        raise UserError(
            f"faiss_file: expected vectors of {dimension} dimensions, which the encoder makes, got {index.d} in {path}"
        )
    if index.metric_type != load_faiss().METRIC_INNER_PRODUCT:
        raise UserError(f"faiss_file: expected an index by inner product, got metric {index.metric_type} in {path}")
    return index


def describe(index: Any) -> tuple[str, str, int]:
    """The layout's name, the parameter that it is searched with and its value.

    Without the vectors nothing can be tuned; what the file says is raised to 128 (HNSW) or 32 lists (IVF).
    """
    name = type(index).__name__
    if hasattr(index, "hnsw"):
        return name, "efSearch", max(_LEAST_SEARCH, index.hnsw.efSearch)
    if hasattr(index, "nprobe"):
        return name, "nprobe", min(index.nlist, max(_LEAST_PROBES, index.nprobe))
    return name, "", 0
