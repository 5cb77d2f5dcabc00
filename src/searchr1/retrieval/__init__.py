"""Finding passages: corpora, indexes, the search server and its client.

A new backend is one file and one line in ``BACKENDS``; ``index build --kind`` and the contract suite then know it.
Nothing heavy is imported here: a backend's module is imported when an index of its kind is built or opened.
"""

from __future__ import annotations

BACKENDS = {
    "bm25": "searchr1.retrieval.bm25:Bm25",
}
"""Kind of index -> ``module:class`` of its backend, a frozen dataclass whose fields are its options."""
