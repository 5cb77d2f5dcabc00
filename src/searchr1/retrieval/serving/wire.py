"""What goes over the wire of the search server: the bodies of requests and answers, and the limits of a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import UNSET, Struct, UnsetType

from searchr1.errors import UserError
from searchr1.retrieval.queries import MAX_K, clean
from searchr1.types import Passage


class RetrieveRequest(Struct, gc=False):
    """The body of ``POST /retrieve``; keys that we do not know are left to the clients that send them."""

    queries: list[str]
    topk: int | None = None
    return_scores: bool = False


class SearchRequest(Struct, gc=False):
    """The body of ``POST /search``: results ``offset + 1`` to ``offset + limit``."""

    query: str
    offset: int = 0
    limit: int = 10


class Document(Struct, gc=False):
    id: str
    contents: str
    title: str
    text: str


class ScoredDocument(Struct, gc=False):
    document: Document
    score: float | None
    """None where the search engine's score is no number."""


class Snippet(Struct, frozen=True, gc=False):
    """A piece of a passage's text that shows why it was found, never marked up.

    ``matches`` are the (start, end) of words of the query in ``text``, and ``start`` is where the piece begins in the
    passage's text; all count Unicode characters (code points), not bytes or UTF-16 units.
    """

    text: str
    matches: tuple[tuple[int, int], ...]
    start: int


class Found(Struct, gc=False):
    """One result for a reader; ``rank`` begins with 1."""

    rank: int
    id: str
    title: str
    title_matches: tuple[tuple[int, int], ...]
    score: float | None
    snippet: Snippet
    text: str


class SearchResults(Struct, gc=False):
    """The answer of ``POST /search``; ``more`` says whether a next page has anything."""

    query: str
    offset: int
    limit: int
    more: bool
    results: list[Found]


class Health(Struct, gc=False):
    kind: str
    corpus_hash: str
    passages: int
    ready: bool
    error: str | UnsetType = UNSET


class Failure(Struct, gc=False):
    """Every answer with a 4xx or 5xx status."""

    error: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may ask for; above it is refused with 400 (413 for a large body, 408 for a slow one, 503).

    >>> Limits(queries=2).refusal(["a", "b", "c"], 1)
    '"queries": expected at most 2, got 3'
    """

    queries: int = 4096
    query_characters: int = 20_000
    topk: int = MAX_K
    default_topk: int = 3
    page: int = 100
    """Results of one ``POST /search``."""
    body_bytes: int = 64 * 1024 * 1024
    body_seconds: float = 30.0
    """In which a body has to arrive."""
    under_way: int = 4096
    """Searches of one process at one moment; more requests are told to come back in a second."""

    def __post_init__(self) -> None:
        if not 1 <= self.topk <= MAX_K:
            raise UserError(f"topk: expected a limit from 1 to {MAX_K}, got {self.topk}")
        if self.under_way < 1:
            raise UserError(f"--max-queue: expected at least 1, got {self.under_way}")

    def refusal(self, queries: Sequence[str], topk: int) -> str:
        """What is wrong with a ``POST /retrieve``; empty when nothing is."""
        if len(queries) > self.queries:
            return f'"queries": expected at most {self.queries}, got {len(queries)}'
        for place, query in enumerate(queries):
            if len(query) > self.query_characters:
                return f'"queries"[{place}]: expected at most {self.query_characters} characters, got {len(query)}'
        if not 1 <= topk <= self.topk:
            return f'"topk": expected a number from 1 to {self.topk}, got {topk}'
        return ""

    def search_refusal(self, asked: SearchRequest) -> str:
        """What is wrong with a ``POST /search``; empty when nothing is."""
        if len(asked.query) > self.query_characters:
            return f'"query": expected at most {self.query_characters} characters, got {len(asked.query)}'
        if not 1 <= asked.limit <= min(self.page, self.topk):
            return f'"limit": expected a number from 1 to {min(self.page, self.topk)}, got {asked.limit}'
        if not 0 <= asked.offset <= self.topk - asked.limit:
            return f'"offset": expected a number from 0 to {self.topk} - limit, got {asked.offset}'
        return ""


def document(passage: Passage) -> Document:
    return Document(passage.id, passage.contents, passage.title, passage.text)


def cleaned(passage: Passage) -> Passage:
    """The passage as it survives UTF-8: see `searchr1.retrieval.queries.clean`."""
    return Passage(clean(passage.id), clean(passage.title), clean(passage.text), passage.score)
