"""The design of Search-R1's search server, written anew in its shortest form, over the engine of one's choice.

That server (arXiv 2503.09516) is a FastAPI application with a pydantic model of the request, a blocking endpoint and a
loop over the queries of a batch; results are dictionaries that FastAPI checks and encodes. ``standin tantivy DIR``
serves an index of ours so, whence whatever is slower is the server; ``standin lucene DIR JAR`` searches as the original
does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from searchr1.benchmarks.retrieval.systems import Lucene
from searchr1.retrieval.corpus import split_contents
from searchr1.retrieval.index import open_index
from searchr1.types import Passage

SearchOne = Callable[[str, int], list[Passage]]


class Query(BaseModel):
    """The body of a request."""

    queries: list[str]
    topk: int | None = None
    return_scores: bool = False


def create_standin(search: SearchOne) -> FastAPI:
    """``POST /retrieve`` over a function that finds the passages for one query."""
    app = FastAPI()

    @app.post("/retrieve")
    def retrieve(request: Query) -> Any:
        results = [search(query, request.topk or 3) for query in request.queries]
        answer: list[list[dict[str, Any]]] = []
        for hits in results:
            documents = [_document(passage) for passage in hits]
            if request.return_scores:
                scored = zip(documents, hits, strict=True)
                answer.append([{"document": document, "score": passage.score} for document, passage in scored])
            else:
                answer.append(documents)
        return {"result": answer}

    return app


def search_ours(folder: Path) -> SearchOne:
    """One query in our index, on the calling thread."""
    retriever = open_index(folder)
    search_one: SearchOne = retriever._passages  # type: ignore[attr-defined]
    return search_one  # the engine alone: its coroutine would hop to another thread for every query of the loop


def search_lucene(folder: Path, jar: Path) -> SearchOne:
    """One query in Lucene's index; the endpoint's threads take turns.

    Without the lock the JVM crashed within seconds in our tries.
    """
    lucene = Lucene(jar)
    lucene.open(folder)
    lock = Lock()

    def search(query: str, k: int) -> list[Passage]:
        with lock:
            found = lucene.documents(query, k)
        return [Passage(document["id"], *split_contents(document["contents"]), score) for document, score in found]

    return search


def _document(passage: Passage) -> dict[str, Any]:
    return {"id": passage.id, "contents": passage.contents, "title": passage.title, "text": passage.text}


def main() -> None:
    kind, folder, *jar = sys.argv[1:]
    search = search_lucene(Path(folder), Path(jar[0])) if kind == "lucene" else search_ours(Path(folder))
    from searchr1.retrieval.serving.server import listen, url_of

    with listen("127.0.0.1", 0) as listener:
        print(url_of(listener, "127.0.0.1"), file=sys.stderr, flush=True)
        config = uvicorn.Config(create_standin(search), log_level="warning", access_log=False)
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
