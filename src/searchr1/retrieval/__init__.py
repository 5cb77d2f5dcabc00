"""Finding passages: corpora, indexes, search engines, the search server and its client.

A new backend is one file and one line in one of the dicts below; ``index build --kind``, ``--retriever KIND:...`` and
the contract suite then know it. Nothing heavy is imported here: a module is imported when its kind is built or opened.
"""

from __future__ import annotations

BACKENDS = {
    "bm25": "searchr1.retrieval.bm25:Bm25",
    "dense": "searchr1.retrieval.dense.backend:Dense",
    "hybrid": "searchr1.retrieval.hybrid:Hybrid",
    "opensearch": "searchr1.retrieval.clusters.opensearch:OpenSearchIndex",
    "qdrant": "searchr1.retrieval.clusters.qdrant:QdrantIndex",
}
"""Kind of index -> ``module:class`` of its `index.Backend`: what ``index build`` makes a folder of, from a corpus."""

SEARCH_ENGINES = {
    "http": "searchr1.retrieval.client:Http",
    "fusion": "searchr1.retrieval.fusion:Fusion",
    "oracle": "searchr1.retrieval.oracle:Oracle",
    "random": "searchr1.retrieval.chance:Random",
    "rerank": "searchr1.retrieval.rerank:Rerank",
    "simulated": "searchr1.retrieval.online.simulated:Simulated",
    "web": "searchr1.retrieval.online.web:Web",
    "opensearch": "searchr1.retrieval.clusters.opensearch:OpenSearch",
}
"""Kind of search engine -> ``module:class`` of its `spec.SearchEngine`: what is not a folder, but only options."""
