"""From what the user wrote after ``--retriever`` to a retriever that is known to answer."""

from __future__ import annotations

from pathlib import Path

from searchr1.errors import SearchUnavailable, UserError
from searchr1.ports import Retriever, RetrieverInfo
from searchr1.retrieval.index import open_index

_PROBE = "capital of France"


def open_retriever(spec: str) -> Retriever:
    """The retriever of an index folder or of the URL of a ``/retrieve`` server.

    Raises UserError for anything else. A URL is not contacted here: see `check_retriever`.
    """
    if spec.startswith(("http://", "https://")):
        from searchr1.retrieval.client import HttpRetriever

        return HttpRetriever(spec)
    if not spec or not Path(spec).exists():
        raise UserError(f"retriever: expected an index folder or a URL (http://HOST:PORT), got {spec!r}")
    return open_index(spec)


async def check_retriever(retriever: Retriever) -> RetrieverInfo:
    """Search once, so that a run fails when it starts and not an hour later; what it searches in.

    Raises UserError when the search engine is down or answers garbage.
    """
    try:
        found = await retriever.search([_PROBE], 1)
        info = await retriever.info()
    except SearchUnavailable as error:
        raise UserError(f"the search engine does not work: {error}; start it, or correct `retriever`") from error
    if len(found) != 1 or len(found[0]) > 1:
        counts = [len(hits) for hits in found]
        raise UserError(f"the search engine does not work: asked one query for one passage, got {counts} passages")
    return info


def check_corpus(info: RetrieverInfo, corpus_hash: str) -> None:
    """Raises UserError when the retriever is known to search in another corpus than the one with this hash."""
    if info.corpus_hash and corpus_hash and info.corpus_hash != corpus_hash:
        raise UserError(
            f"the {info.kind} index was built from another corpus (its hash is {info.corpus_hash[:12]}..., the corpus "
            f"has {corpus_hash[:12]}...); build it again from this corpus, or correct `data.corpus`"
        )
