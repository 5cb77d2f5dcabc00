"""BM25 (Robertson and Zaragoza 2009) by tantivy, with k1 = 1.2 and b = 0.75, which tantivy fixes.

Two fields are indexed: title and text together, and the title alone, whose matches count a little more. On 2,897 dev
questions of the paper's seven sets a title weight of 0.1 finds about two more supporting titles of a hundred in the
top three than none does; the answers found stay level.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

import tantivy

from searchr1.errors import UserError
from searchr1.ports import RetrieverInfo
from searchr1.retrieval.index import Estimate, Plan, open_store
from searchr1.retrieval.queries import check_k, clean
from searchr1.retrieval.store import CorpusStore
from searchr1.types import Passage

_FOLDER = "tantivy"
_ALL, _TITLE, _ROW = "all", "title", "row"
_ANALYZER = "searchr1_english"
_LONGEST_TERM = 64  # bytes; longer ones are not words
_HEAP_BYTES = 128_000_000  # of the writer; a segment is written when it is full
_WRITER_MEMORY = 300e6  # Python, tantivy's heap and its merges
_MEMORY_A_PASSAGE = 24  # hashes of ids and offsets, with the slack of growing arrays
_DISK_FACTOR = 1.3  # of the text: the stored passages and the postings, as measured on Wikipedia
_TIE_MARGIN = 8
# Scores are sums of 32-bit floats whose last bits depend on how the index is cut into segments. Rounded, equal matches
# are ties wherever they lie, and two builds of one corpus rank alike.
_SCORE_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Bm25:
    """The ``bm25`` backend and its options."""

    remote: ClassVar[bool] = False
    title_weight: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.title_weight <= 10:
            raise UserError(f"title_weight: expected a number from 0 to 10, got {self.title_weight}")

    def plan(self, corpus: Estimate) -> Plan:
        return Plan(_WRITER_MEMORY + _MEMORY_A_PASSAGE * corpus.passages, _DISK_FACTOR * corpus.text_bytes)

    def build(self, folder: Path, passages: Iterable[Passage]) -> None:
        """Index the stream; the row number is all that is kept of a passage."""
        (folder / _FOLDER).mkdir()
        index = tantivy.Index(_schema(), path=str(folder / _FOLDER), reuse=False)
        index.register_tokenizer(_ANALYZER, _analyzer())
        rows = 0
        with index.writer(_HEAP_BYTES, num_threads=1) as writer:
            for row, passage in enumerate(passages):
                document = tantivy.Document()
                document.add_text(_ALL, f"{passage.title}\n{passage.text}")
                document.add_text(_TITLE, passage.title)
                document.add_unsigned(_ROW, row)
                writer.add_document(document)
                rows = row + 1
        index.reload()
        # A failure in the writer's thread (a full disk) is not raised in this one.
        if index.searcher().num_docs != rows:
            raise OSError(f"{folder}: indexed {index.searcher().num_docs} of {rows} passages; is the disk full?")

    def open(self, folder: Path, info: RetrieverInfo) -> Bm25Retriever:
        """Raises UserError when the index is damaged."""
        store = open_store(folder, info)
        try:
            index = tantivy.Index.open(str(folder / _FOLDER))
            index.config_reader("manual")  # an index never changes: no thread that watches for commits
            index.reload()
        except (ValueError, OSError) as error:
            raise UserError(f"{folder}: the index is damaged: {error}; build it again") from error
        searcher = index.searcher()
        if searcher.num_docs != len(store):
            raise UserError(f"{folder}: {searcher.num_docs} passages indexed, {len(store)} stored; build it again")
        return Bm25Retriever(searcher, store, info, self.title_weight)


class Bm25Retriever:
    """Finds the passages that share words with the query; a query without a word finds nothing.

    Any text is a query: it is analysed into terms, never parsed. Ties are broken by row number. A batch is searched in
    a worker thread (tantivy releases the GIL), so the event loop stays free.
    """

    def __init__(self, searcher: tantivy.Searcher, store: CorpusStore, info: RetrieverInfo, title_weight: float):
        self._searcher = searcher
        self._store = store
        self._info = info
        self._title_weight = title_weight
        self._schema = _schema()
        self._analyzer = _analyzer()

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """At most ``k`` (1 to 1000, else UserError) passages for each query, best first."""
        check_k(k)
        if not queries:
            return []
        return await asyncio.to_thread(lambda: [self._passages(query, k) for query in queries])

    async def info(self) -> RetrieverInfo:
        return self._info

    def _passages(self, text: str, k: int) -> list[Passage]:
        terms = dict.fromkeys(self._analyzer.analyze(clean(text)))  # distinct, in order
        if not terms:
            return []
        return [self._store.passage(row, score) for score, row in self._ranked(self._query(terms), k)]

    def _query(self, terms: Iterable[str]) -> tantivy.Query:
        clauses = []
        for term in terms:
            clauses.append((tantivy.Occur.Should, tantivy.Query.term_query(self._schema, _ALL, term, "freq")))
            if self._title_weight:
                in_title = tantivy.Query.term_query(self._schema, _TITLE, term, "freq")
                clauses.append((tantivy.Occur.Should, tantivy.Query.boost_query(in_title, self._title_weight)))
        return tantivy.Query.boolean_query(clauses)

    def _ranked(self, query: tantivy.Query, k: int) -> list[tuple[float, int]]:
        """The best ``k`` (score, row): reads on until no passage left could tie with the last one."""
        limit = k + _TIE_MARGIN
        while True:
            hits = self._searcher.search(query, limit, count=False).hits
            scores = [round(score, _SCORE_DIGITS) for score, _ in hits]
            if len(hits) < limit or limit >= self._searcher.num_docs or scores[-1] < scores[k - 1]:
                break
            limit = min(4 * limit, self._searcher.num_docs)
        rows = cast(list[int], self._searcher.fast_field_values(_ROW, [address for _, address in hits]))
        return sorted(zip(scores, rows, strict=True), key=lambda hit: (-hit[0], hit[1]))[:k]


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    for name in (_ALL, _TITLE):
        builder.add_text_field(name, tokenizer_name=_ANALYZER, index_option="freq")
    return builder.add_unsigned_field(_ROW, fast=True).build()


def _analyzer() -> tantivy.TextAnalyzer:
    """Lower-cased words without accents, without Lucene's English stop words, stemmed (Snowball English)."""
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
    for step in (
        tantivy.Filter.remove_long(_LONGEST_TERM),
        tantivy.Filter.lowercase(),
        tantivy.Filter.ascii_fold(),
        tantivy.Filter.stopword("english"),
        tantivy.Filter.stemmer("english"),
    ):
        builder = builder.filter(step)
    return builder.build()
