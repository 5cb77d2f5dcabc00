"""BM25 (Robertson and Zaragoza 2009) by tantivy, with k1 = 1.2 and b = 0.75, which tantivy fixes.

Two fields are indexed: title and text together, and the title alone, whose matches count a little more. On 2,897 dev
questions of the paper's seven sets a title weight of 0.1 finds about two more supporting titles of a hundred in the
top three than none does; the answers found stay level.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias, cast

import tantivy

from searchr1.errors import SearchR1Error, UserError, nearest
from searchr1.machine import usable_cores
from searchr1.ports import RetrieverInfo
from searchr1.retrieval.index import Estimate, Plan, open_store
from searchr1.retrieval.queries import check_k, clean
from searchr1.retrieval.store import CorpusStore
from searchr1.types import Passage

LANGUAGES = {
    "arabic", "danish", "dutch", "english", "finnish", "french", "german", "greek", "hungarian", "italian", "norwegian",
    "portuguese", "romanian", "russian", "spanish", "swedish", "tamil", "turkish",
}  # fmt: skip
"""Those that tantivy has a Snowball stemmer for."""
WITHOUT_STOP_WORDS = {"arabic", "greek", "romanian", "tamil", "turkish"}
"""Those of them that it has no list of stop words for."""
_FOLDER = "tantivy"
_ALL, _TITLE, _ROW = "all", "title", "row"
_LONGEST_TERM = 64  # bytes; longer ones are not words
_HEAP_BYTES = 128_000_000  # of the writer; a segment is written when it is full
_WRITER_MEMORY = 300e6  # Python, tantivy's heap and its merges
_MEMORY_A_PASSAGE = 24  # hashes of ids and offsets, with the slack of growing arrays
_DISK_FACTOR = 1.3  # of the text: the stored passages and the postings, as measured on Wikipedia
_DISK_FACTOR_NGRAM = 3.2  # of random Chinese characters; 1.5 of English
_TIE_MARGIN = 2
_REMEMBERED_TERMS = 16_384
_LEAST_SHARE = 64  # queries, below which a thread of their own does not pay
# Scores are sums of 32-bit floats whose last bits depend on how the index is cut into segments. Rounded, equal matches
# are ties wherever they lie, and two builds of one corpus rank alike.
_SCORE_DIGITS = 4
_Clauses: TypeAlias = tuple[tuple[tantivy.Occur, tantivy.Query], ...]


@dataclass(frozen=True, slots=True)
class Bm25:
    """The ``bm25`` backend and its options.

    A word is a run of letters and digits, in lower case and without accents. ``language`` says which words are stop
    words, left out of passages and queries (``stop_words``; none in `WITHOUT_STOP_WORDS`), and how the others are
    stemmed (``stem``, Snowball); "" does neither, for any other language.

    Scripts that put no spaces between words (Chinese, Japanese, Thai) make one word of a whole clause, which only the
    very same clause finds. ``tokens="ngram"`` with ``language=""`` indexes every character and every two neighbours in
    place of words: it finds any piece of text in any script, in an index up to three times the text. It knows no
    words, so of a text in spaced scripts it also finds those that merely share pairs of letters with the query.

    >>> Bm25(language="german").stop_words, Bm25(language="", tokens="ngram").title_weight
    (True, 0.1)
    """

    remote: ClassVar[bool] = False
    title_weight: float = 0.1
    language: str = "english"
    stem: bool = True
    stop_words: bool = True
    tokens: Literal["word", "ngram"] = "word"

    def __post_init__(self) -> None:
        if not 0 <= self.title_weight <= 10:
            raise UserError(f"title_weight: expected a number from 0 to 10, got {self.title_weight}")
        if self.language and self.language not in LANGUAGES:
            raise UserError(
                f"language: expected one that there is a stemmer for, or '' for any other, got {self.language!r}"
                f"{nearest(self.language, LANGUAGES)}"
            )
        if self.tokens == "ngram" and self.language:
            raise UserError(
                f"tokens: an ngram has no stem and no {self.language} stop words; set language = '' with it"
            )

    def plan(self, corpus: Estimate) -> Plan:
        factor = _DISK_FACTOR_NGRAM if self.tokens == "ngram" else _DISK_FACTOR
        return Plan(_WRITER_MEMORY + _MEMORY_A_PASSAGE * corpus.passages, factor * corpus.text_bytes)

    def build(self, folder: Path, passages: Iterable[Passage]) -> None:
        """Index the stream; the row number is all that is kept of a passage."""
        (folder / _FOLDER).mkdir()
        with _told():
            index = tantivy.Index(self.schema(), path=str(folder / _FOLDER), reuse=False)
        self._write(index, (), enumerate(passages))

    def update(self, folder: Path, deleted: Sequence[int], added: Iterable[tuple[int, Passage]]) -> None:
        """See `searchr1.retrieval.update.Updatable`. Deleted passages still count in the statistics of words.

        The others are scored as if they were there; with a twentieth of 61,668 passages of Wikipedia deleted, that
        changed the first passage of 0.4% of 2,897 questions and which are the first ten of 4%.
        """
        self._write(self._opened(folder), deleted, added)

    def open(self, folder: Path, info: RetrieverInfo) -> Bm25Retriever:
        """Raises UserError when the index is damaged."""
        store = open_store(folder, info)
        searcher = self._opened(folder).searcher()
        try:
            for name in (_ALL, _TITLE):  # opens what is not opened before the first search
                searcher.search(tantivy.Query.term_query(self.schema(), name, ""), 1, count=False)
        except ValueError as error:
            raise UserError(f"{folder}: the index is damaged: {error}; build it again") from error
        if searcher.num_docs != len(store):
            raise UserError(f"{folder}: {searcher.num_docs} passages indexed, {len(store)} stored; build it again")
        return Bm25Retriever(searcher, store, info, self)

    def terms(self, analyzer: tantivy.TextAnalyzer, text: str) -> list[str]:
        """The distinct terms of a query, in order."""
        found = dict.fromkeys(analyzer.analyze(clean(text)))
        return [term for term in found if self.tokens == "word" or _is_word(term)]

    def analyzer(self) -> tantivy.TextAnalyzer:
        """What makes terms of text, of passages and queries alike."""
        tokenizer = tantivy.Tokenizer.ngram(1, 2) if self.tokens == "ngram" else tantivy.Tokenizer.simple()
        fold = tantivy.Filter.ascii_fold()
        words = []
        if self.stop_words and self.language and self.language not in WITHOUT_STOP_WORDS:
            words.append(tantivy.Filter.stopword(self.language))
        if self.stem and self.language:
            words.append(tantivy.Filter.stemmer(self.language))
        # English words have no accents; in other languages endings and stop words are told by them.
        words = [fold, *words] if self.language == "english" else [*words, fold]
        builder = tantivy.TextAnalyzerBuilder(tokenizer)
        for step in (tantivy.Filter.remove_long(_LONGEST_TERM), tantivy.Filter.lowercase(), *words):
            builder = builder.filter(step)
        return builder.build()

    def schema(self) -> tantivy.Schema:
        builder = tantivy.SchemaBuilder()
        for name in (_ALL, _TITLE):
            builder.add_text_field(name, tokenizer_name=self._analyzer_name(), index_option="freq")
        return builder.add_unsigned_field(_ROW, indexed=True, fast=True).build()

    def _analyzer_name(self) -> str:
        return f"searchr1_{self.language or 'plain'}"

    def _opened(self, folder: Path) -> tantivy.Index:
        try:
            index = tantivy.Index.open(str(folder / _FOLDER))
            index.config_reader("manual")  # an open index never changes: no thread that watches for commits
            index.reload()
        except (ValueError, OSError) as error:
            raise UserError(f"{folder}: the index is damaged: {error}; build it again") from error
        return index

    def _write(self, index: tantivy.Index, deleted: Sequence[int], added: Iterable[tuple[int, Passage]]) -> None:
        index.register_tokenizer(self._analyzer_name(), self.analyzer())
        expected = index.searcher().num_docs - len(deleted)
        with _told(), index.writer(_HEAP_BYTES, num_threads=1) as writer:
            for row in deleted:
                writer.delete_documents_by_query(tantivy.Query.term_query(index.schema, _ROW, row))
            for row, passage in added:
                document = tantivy.Document()
                document.add_text(_ALL, f"{passage.title}\n{passage.text}")
                document.add_text(_TITLE, passage.title)
                document.add_unsigned(_ROW, row)
                writer.add_document(document)
                expected += 1
        index.reload()
        # A failure in the writer's thread is not always raised in this one.
        if index.searcher().num_docs != expected:
            raise SearchR1Error(f"indexed {index.searcher().num_docs} of {expected} passages; is the disk full?")


class Bm25Retriever:
    """Finds the passages that share words with the query; a query without a word finds nothing.

    Any text is a query: it is analysed into terms, never parsed. Ties are broken by row number. Searching happens in
    worker threads (tantivy releases the GIL), so the event loop stays free and a large batch takes every core.
    """

    def __init__(self, searcher: tantivy.Searcher, store: CorpusStore, info: RetrieverInfo, options: Bm25) -> None:
        self._searcher = searcher
        self._store = store
        self._info = info
        self._options = options
        self._schema = options.schema()
        self._analyzer = options.analyzer()
        self._remembered = lru_cache(_REMEMBERED_TERMS)(self._clauses)

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """At most ``k`` (1 to 1000, else UserError) passages for each query, best first."""
        check_k(k)
        if not queries:
            return []
        size = max(_LEAST_SHARE, -(-len(queries) // usable_cores()))
        shares = [queries[start : start + size] for start in range(0, len(queries), size)]
        found = await asyncio.gather(*(asyncio.to_thread(self._search, share, k) for share in shares))
        return list(chain.from_iterable(found))

    async def info(self) -> RetrieverInfo:
        return self._info

    def _search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        return [self._passages(query, k) for query in queries]

    def _passages(self, text: str, k: int) -> list[Passage]:
        terms = self._options.terms(self._analyzer, text)
        if not terms:
            return []
        query = tantivy.Query.boolean_query([clause for term in terms for clause in self._remembered(term)])
        return [self._store.stored(row, score) for score, row in self._ranked(query, k)]

    def _clauses(self, term: str) -> _Clauses:
        anywhere = tantivy.Query.term_query(self._schema, _ALL, term, "freq")
        if not self._options.title_weight:
            return ((tantivy.Occur.Should, anywhere),)
        in_title = tantivy.Query.term_query(self._schema, _TITLE, term, "freq")
        weighted = tantivy.Query.boost_query(in_title, self._options.title_weight)
        return ((tantivy.Occur.Should, anywhere), (tantivy.Occur.Should, weighted))

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


@contextmanager
def _told() -> Iterator[None]:
    """What tantivy says of a disk it cannot write to, as an error of ours."""
    try:
        yield
    except ValueError as error:
        raise SearchR1Error(f"tantivy cannot write the index: {error}; is the disk full?") from error


def _is_word(gram: str) -> bool:
    """False where a space, a sign or a control character is part of it: those find everything and nothing."""
    return all(unicodedata.category(character)[0] in "LMN" for character in gram)
