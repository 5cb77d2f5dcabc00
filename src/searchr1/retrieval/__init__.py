"""Finding passages: corpora, indexes, search engines, the search server and its client.

A new backend is one file and one line in one of the dicts below; ``index build --kind``, ``--retriever KIND:...`` and
the contract suite then know it. Nothing heavy is imported here: a module is imported when its kind is built or opened.
"""

from __future__ import annotations

BACKENDS = {
    "bm25": "searchr1.retrieval.bm25:Bm25",
}
"""Kind of index -> ``module:class`` of its `index.Backend`: what ``index build`` makes a folder of, from a corpus."""

SEARCH_ENGINES = {
    "http": "searchr1.retrieval.client:Http",
}
"""Kind of search engine -> ``module:class`` of its `spec.SearchEngine`: what is not a folder, but only options."""
