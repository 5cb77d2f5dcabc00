"""What every retriever promises, run on every implementation over the same five passages."""

import asyncio
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import httpx
import opensearch_stub
import pytest
from hash_encoder import HashEncoder

from searchr1.errors import UserError
from searchr1.ports import Retriever
from searchr1.retrieval import BACKENDS, SEARCH_ENGINES
from searchr1.retrieval.batching import CoalescingRetriever
from searchr1.retrieval.cache import CachedRetriever
from searchr1.retrieval.client import HttpRetriever
from searchr1.retrieval.clusters import common as cluster
from searchr1.retrieval.dense import backend as dense_backend
from searchr1.retrieval.dictionary import DictionaryRetriever
from searchr1.retrieval.fusion import FusionRetriever
from searchr1.retrieval.index import build_index, open_index
from searchr1.retrieval.policy import Policy
from searchr1.retrieval.pool import PoolRetriever
from searchr1.retrieval.rerank import RerankRetriever
from searchr1.retrieval.serving.server import create_app, listen, server_of
from searchr1.types import Passage

PASSAGES = [
    Passage("d0", "Dune", "Dune is a science fiction novel by Frank Herbert."),
    Passage("d1", "Frank Herbert", "Frank Herbert was an American author, born in Tacoma."),
    Passage("d2", "Tacoma", "Tacoma is a port city in Washington."),
    Passage("d3", "Émile Zola", 'Émile Zola wrote "Germinal".\nIt is a novel — 小説 — about miners.'),
    Passage("d4", "Kraków", "Kraków lies on the Vistula."),
]
EXPECTED_FIRST = {"Who was Frank Herbert, the author?": "d1", "Vistula": "d4", "emile zola germinal": "d3"}
GARBAGE = ["", " ", "\n\t", 'AND ( "', ":", "\\", "all:*", "😀", "\x00", "\ud800", "title:[a TO z]^2~", "wordle" * 1700]

# The kinds of index are added from the package's own table: a new one is tested by being listed there.
KINDS = [f"index:{kind}" for kind in BACKENDS]
IMPLEMENTATIONS = [*KINDS, "dictionary", "http over sockets", "http in process", "coalescing", "fusion", "rerank"]
IMPLEMENTATIONS += ["http pool", "cached"]

LIBRARIES = {"dense": "faiss", "hybrid": "faiss", "qdrant": "qdrant_client"}
"""What the kinds of index need beyond the package's own requirements; those whose library is missing are skipped."""

MATCH_BY_MEANING = {"index:qdrant", "index:dense", "index:hybrid"}
"""What finds the nearest passages, however far: any text that is not blank finds some."""


@runtime_checkable
class Closing(Protocol):
    async def aclose(self) -> None: ...


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    rows = ({"id": p.id, "title": p.title, "text": p.text} for p in PASSAGES)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def options(corpus: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """Of the kinds of index that need some. SEARCHR1_OPENSEARCH_URL names a real cluster to test."""
    with opensearch_stub.running() as stub, pytest.MonkeyPatch.context() as patch:
        for module in (cluster, dense_backend):
            patch.setattr(module, "load_encoder", lambda name, **options: HashEncoder())
        url = os.environ.get("SEARCHR1_OPENSEARCH_URL") or stub.url
        yield {
            "opensearch": {"url": url, "index": "searchr1-contract", "replace": True},
            "qdrant": {"path": str(corpus.parent / "qdrant"), "collection": "contract"},
        }
        assert not stub.complaints


@pytest.fixture(scope="module")
def indexes(corpus: Path, options: dict[str, dict[str, Any]]) -> dict[str, Path]:
    there = [kind for kind in BACKENDS if kind not in LIBRARIES or find_spec(LIBRARIES[kind])]
    folders = {kind: corpus.parent / f"{kind}.index" for kind in there}
    for kind, folder in folders.items():
        build_index(corpus, folder, kind=kind, options=options.get(kind))
    return folders


@pytest.fixture(scope="module")
def server_url(indexes: dict[str, Path]) -> Iterator[str]:
    with listen("127.0.0.1", 0) as listener:
        server = server_of(create_app(open_index(indexes["bm25"])))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.002)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(params=IMPLEMENTATIONS)
async def retriever(
    request: pytest.FixtureRequest, indexes: dict[str, Path], tmp_path: Path
) -> AsyncIterator[Retriever]:
    name: str = request.param
    if name.startswith("index:"):
        kind = name.removeprefix("index:")
        if kind not in indexes:
            pytest.skip(f"{name} needs {LIBRARIES[kind]}")
        opened = open_index(indexes[kind])
        yield opened
        if isinstance(opened, Closing):
            await opened.aclose()
    elif name == "dictionary":
        by_id = {passage.id: passage for passage in PASSAGES}
        yield DictionaryRetriever(
            {query: [by_id[first], *(p for p in PASSAGES if p.id != first)] for query, first in EXPECTED_FIRST.items()}
        )
    elif name == "http over sockets":
        async with HttpRetriever(request.getfixturevalue("server_url"), Policy(retries=0)) as client:
            yield client
    elif name == "http in process":
        transport = httpx.ASGITransport(app=create_app(open_index(indexes["bm25"])))
        async with HttpRetriever("http://searchr1.test", Policy(retries=0), transport=transport) as client:
            yield client
    elif name == "http pool":
        apps = {f"http://{host}": create_app(open_index(indexes["bm25"])) for host in ("one", "two")}
        clients = [HttpRetriever(url, transport=httpx.ASGITransport(app=app)) for url, app in apps.items()]
        async with PoolRetriever(clients) as pool:
            yield pool
    elif name == "cached":
        yield CachedRetriever(open_index(indexes["bm25"]), tmp_path / "cache.sqlite", "replay")
    elif name == "fusion":
        yield FusionRetriever([open_index(indexes["bm25"]), open_index(indexes["bm25"])])
    elif name == "rerank":  # by a scorer that prefers what was found first
        yield RerankRetriever(open_index(indexes["bm25"]), lambda: lambda pairs: [-float(i) for i in range(len(pairs))])
    else:
        yield CoalescingRetriever(open_index(indexes["bm25"]))


def test_is_a_retriever(retriever: Retriever) -> None:
    assert isinstance(retriever, Retriever)


async def test_one_list_for_each_query_in_their_order_best_first(retriever: Retriever) -> None:
    queries = list(EXPECTED_FIRST)
    for asked in (queries, queries[::-1]):
        found = await retriever.search(asked, 3)
        assert [passages[0].id for passages in found] == [EXPECTED_FIRST[query] for query in asked]
        for passages in found:
            scores = [passage.score for passage in passages]
            assert scores == sorted(scores, reverse=True)
            assert len({passage.id for passage in passages}) == len(passages)


async def test_passages_come_back_whole(retriever: Retriever) -> None:
    ((passage,),) = await retriever.search(["emile zola germinal"], 1)
    assert (passage.id, passage.title, passage.text) == ("d3", PASSAGES[3].title, PASSAGES[3].text)


async def test_never_more_than_k(retriever: Retriever) -> None:
    for k in (1, 2, 1000):
        (found,) = await retriever.search(["Who was Frank Herbert, the author?"], k)
        assert 1 <= len(found) <= min(k, len(PASSAGES))


@pytest.mark.parametrize("k", [0, -1, 1001, True, 2.0, None])
async def test_a_k_out_of_range_is_the_users_error(retriever: Retriever, k: int) -> None:
    with pytest.raises(UserError, match="k: expected a whole number from 1 to 1000, got"):
        await retriever.search(["Vistula"], k)


async def test_no_queries_find_nothing(retriever: Retriever) -> None:
    assert await retriever.search([], 3) == []


async def test_garbage_finds_nothing_and_harms_nothing(retriever: Retriever, request: pytest.FixtureRequest) -> None:
    found = await retriever.search([*GARBAGE, "Vistula"], 3)
    by_meaning = request.node.callspec.params["retriever"] in MATCH_BY_MEANING
    assert found[:-1] == [[]] * len(GARBAGE) or by_meaning
    assert all(not passages for passages, text in zip(found, GARBAGE, strict=False) if not text.strip())
    assert found[-1][0].id == "d4"


async def test_equal_searches_find_equal_passages(retriever: Retriever) -> None:
    queries = [*EXPECTED_FIRST, *EXPECTED_FIRST]
    first = await retriever.search(queries, 5)
    assert first == await retriever.search(queries, 5)
    assert first[:3] == first[3:]


async def test_searches_at_the_same_moment_do_not_mix(retriever: Retriever) -> None:
    async def ask(query: str) -> str:
        return (await retriever.search([query], 2))[0][0].id

    queries = list(EXPECTED_FIRST) * 8
    assert await asyncio.gather(*map(ask, queries)) == [EXPECTED_FIRST[query] for query in queries]


async def test_a_result_belongs_to_the_caller(retriever: Retriever) -> None:
    first = await retriever.search(["Vistula", "Vistula"], 2)
    first[0].clear()
    assert first[1]
    assert (await retriever.search(["Vistula"], 2))[0]


async def test_info_says_what_is_searched(retriever: Retriever) -> None:
    info = await retriever.info()
    assert info.kind in (*BACKENDS, *SEARCH_ENGINES, "dictionary")
    assert info.passages == len(PASSAGES)
    assert len(info.corpus_hash) == (0 if info.kind == "dictionary" else 64)
