import asyncio
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from hash_encoder import HashEncoder

from searchr1.errors import SearchUnavailable, UserError
from searchr1.ports import RetrieverInfo
from searchr1.retrieval.clusters import common as cluster
from searchr1.retrieval.index import build_index, open_index, read_manifest
from searchr1.retrieval.spec import check_retriever, open_retriever
from searchr1.types import Passage

pytest.importorskip("qdrant_client", reason="needs the extra qdrant")
from searchr1.retrieval.clusters import qdrant
from searchr1.retrieval.clusters.qdrant import QdrantIndex

PASSAGES = [
    Passage("d0", "Dune", "Dune is a science fiction novel by Frank Herbert."),
    Passage("d1", "Tacoma", "Tacoma is a port city in Washington."),
    Passage("d2", "Zola", "Zola wrote Germinal."),
    Passage("d3", "Twin", "the same words"),
    Passage("d4", "Twin", "the same words"),
]
QUICK: dict[str, Any] = {"retries": 2, "backoff": 0.001, "timeout": 5.0}


@pytest.fixture(autouse=True)
def hash_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "load_encoder", lambda name, **options: HashEncoder())


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"id": p.id, "title": p.title, "text": p.text}) + "\n" for p in PASSAGES))
    return path


def build(corpus: Path, out: str = "wiki", **options: Any) -> Path:
    folder = corpus.parent / out
    if "url" not in options:
        options["path"] = str(corpus.parent / "engine")
    options = {"collection": "wiki", "policy": QUICK, **options}
    build_index(corpus, folder, kind="qdrant", options=options)
    return folder


def search(folder: Path, *queries: str, k: int = 2) -> list[list[str]]:
    async def ask() -> list[list[Passage]]:
        async with open_index(folder) as retriever:  # type: ignore[attr-defined]
            found: list[list[Passage]] = await retriever.search(queries, k)
            return found

    return [[passage.id for passage in passages] for passages in asyncio.run(ask())]


class Server:
    """Answers the calls of the official client, in the words of Qdrant's REST API, about one collection."""

    def __init__(self) -> None:
        self.config: dict[str, Any] | None = None
        self.points: dict[int, Any] = {}
        self.requests: list[tuple[str, str, Any]] = []
        self.faults: dict[str, list[httpx.Response | Exception]] = {}
        self.keys: set[str | None] = set()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path, body = request.url.path, json.loads(request.content) if request.content else None
        self.requests.append((request.method, path, body))
        self.keys.add(request.headers.get("api-key"))
        if self.faults.get(path):
            fault = self.faults[path].pop(0)
            if isinstance(fault, Exception):
                raise fault
            return fault
        return httpx.Response(
            200, json={"time": 0.0, "status": "ok", "result": self._result(request.method, path, body)}
        )

    def _result(self, method: str, path: str, body: Any) -> Any:
        match (method, path.removeprefix("/collections/wiki")):
            case ("GET", "/exists"):
                return {"exists": self.config is not None}
            case ("PUT", ""):
                self.config, self.points = dict(body), {}
                return True
            case ("DELETE", ""):
                self.config = None
                return True
            case ("PATCH", ""):
                assert self.config is not None
                self.config["metadata"] = body["metadata"]
                return True
            case ("GET", ""):
                return self._info()
            case ("PUT", "/points"):
                batch = body["batch"]
                self.points |= dict(
                    zip(batch["ids"], zip(batch["vectors"], batch["payloads"], strict=True), strict=True)
                )
                return {"operation_id": 1, "status": "completed"}
            case ("POST", "/points/count"):
                return {"count": len(self.points)}
            case ("POST", "/points/query/batch"):
                return [{"points": self._nearest(one)} for one in body["searches"]]
        raise AssertionError(f"an unexpected request: {method} {path}")

    def _info(self) -> Any:
        assert self.config is not None
        hnsw = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000}
        optimizer = {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1000, "default_segment_number": 0,
                     "flush_interval_sec": 5}  # fmt: skip
        config = {"params": {}, "hnsw_config": hnsw, "optimizer_config": optimizer, **self.config}
        return {
            "status": "green",
            "optimizer_status": "ok",
            "segments_count": 1,
            "payload_schema": {},
            "config": config,
        }

    def _nearest(self, one: Any) -> Any:
        assert one["with_payload"] is True
        scored = [
            {
                "id": row,
                "version": 0,
                "payload": payload,
                "score": sum(map(float.__mul__, one["query"]["nearest"], vector)),
            }
            for row, (vector, payload) in self.points.items()
        ]
        return sorted(scored, key=lambda point: (-point["score"], -point["id"]))[: one["limit"]]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    serving = Server()
    client: Callable[..., Any] = partial(qdrant.AsyncQdrantClient, transport=httpx.MockTransport(serving))
    monkeypatch.setattr(qdrant, "AsyncQdrantClient", client)
    return serving


URL = {"url": "http://qdrant.test"}


# Without a cluster


def test_the_nearest_passages_are_found_and_ties_keep_the_order_of_the_corpus(corpus: Path) -> None:
    folder = build(corpus, bulk_size=2)
    assert search(folder, "the tacoma port", " ", "zola germinal", k=1) == [["d1"], [], ["d2"]]
    assert search(folder, "same words")[0] == ["d3", "d4"]
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json"]


def test_a_lost_a_replaced_and_a_half_built_collection_are_found_out(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build(corpus)
    with pytest.raises(UserError, match="holds a whole index of 5 passages"):
        build(corpus, "second")
    other = corpus.with_name("other.jsonl")
    other.write_text(corpus.read_text().replace("Germinal", "Nana"))
    build(other, "third", replace=True)
    with pytest.raises(UserError, match=r"it was replaced; build it again"):
        search(folder, "zola")
    corpus.write_text(corpus.read_text() + "{broken\n")
    with pytest.raises(UserError, match=r"corpus\.jsonl:6"):
        build(corpus, "fourth", replace=True)
    with pytest.raises(UserError, match="half built"):
        search(folder, "zola")
    build(other, "fifth")  # what is half built needs no permission to be replaced
    assert search(corpus.parent / "fifth", "zola nana", k=1) == [["d2"]]
    monkeypatch.setattr(HashEncoder, "fingerprint", "other")
    with pytest.raises(UserError, match="made by hash-64, queries would be encoded by other"):
        search(corpus.parent / "fifth", "zola")
    monkeypatch.undo()


def test_a_collection_that_is_gone(corpus: Path) -> None:
    folder = build(corpus)
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"wiki"', '"gone"'))
    with pytest.raises(UserError, match="has no such collection; build it again"):
        search(folder, "zola")


# The client does not close the file that it could not lock.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
async def test_two_cannot_use_one_local_engine(corpus: Path) -> None:
    folder = await asyncio.to_thread(build, corpus)
    async with open_index(folder) as first, open_index(folder) as second:  # type: ignore[attr-defined]
        await first.search(["zola"], 1)
        with pytest.raises(UserError, match="already accessed by another instance"):
            await second.search(["zola"], 1)


# With one


def test_what_the_cluster_is_told(server: Server, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARCHR1_QDRANT_API_KEY", "s3cret")
    with pytest.warns(UserWarning, match="insecure connection"):
        folder = build(corpus, **URL, quantization="scalar", on_disk=True, shards=2, replicas=3, bulk_size=2)
    with pytest.warns(UserWarning, match="insecure connection"):
        assert search(folder, "the tacoma port", "same words") == [["d1", "d0"], ["d3", "d4"]]
    made = next(body for method, path, body in server.requests if (method, path) == ("PUT", "/collections/wiki"))
    assert made["vectors"] == {"size": 64, "distance": "Dot", "on_disk": True}
    assert made["quantization_config"] == {"scalar": {"type": "int8", "quantile": 0.99, "always_ram": True}}
    assert (made["shard_number"], made["replication_factor"]) == (2, 3)
    assert not made["metadata"]["searchr1"]["complete"]
    sent = [body["batch"]["ids"] for method, path, body in server.requests if path.endswith("/points")]
    assert sorted(sent) == [[0, 1], [2, 3], [4]]
    mark = server.config["metadata"]["searchr1"]  # type: ignore[index]
    manifest = read_manifest(folder)
    assert (mark["complete"], mark["passages"], mark["corpus_hash"]) == (True, 5, manifest.corpus_hash)
    assert server.keys == {"s3cret"}
    assert "s3cret" not in (folder / "manifest.json").read_text()


FAULTS: dict[str, httpx.Response | Exception] = {
    "busy": httpx.Response(429, json={"status": {"error": "slow down"}}),
    "busy until": httpx.Response(429, headers={"retry-after": "0"}, json={"status": {"error": "slow down"}}),
    "busy until noon": httpx.Response(429, headers={"retry-after": "noon"}, json={"status": {"error": "slow down"}}),
    "unavailable": httpx.Response(503, content=b"<html>"),
    "garbage": httpx.Response(200, content=b"<html>"),
    "cut": httpx.Response(200, content=b'{"result": ['),
    "nothing": httpx.Response(200, json={"result": None, "status": "ok", "time": 0.0}),
    "refused": httpx.ConnectError("refused"),
    "slow": httpx.ReadTimeout("slow"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_passes_is_tried_again_and_what_stays_is_unavailable(server: Server, corpus: Path, name: str) -> None:
    fault = FAULTS[name]
    server.faults = {"/collections/wiki/points": [fault] * 2, "/collections/wiki/points/count": [fault]}
    folder = build(corpus, **URL)
    assert len(server.points) == 5
    server.faults = {"/collections/wiki/points/query/batch": [fault] * 2}
    assert search(folder, "tacoma", k=1) == [["d1"]]
    server.faults = {"/collections/wiki/points/query/batch": [fault] * 3}
    with pytest.raises(SearchUnavailable, match=r"http://qdrant\.test: gave up after 3 attempts"):
        search(folder, "tacoma")


def test_what_will_not_pass_is_not_tried_again(server: Server, corpus: Path) -> None:
    folder = build(corpus, **URL)
    server.faults = {
        "/collections/wiki/points/query/batch": [httpx.Response(400, json={"status": {"error": "no"}})] * 2
    }
    with pytest.raises(SearchUnavailable, match=r"status 400: .*no"):
        search(folder, "tacoma")
    assert len(server.faults["/collections/wiki/points/query/batch"]) == 1


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ([], "asked 1 queries, got results for 0"),
        ([{"points": [{"id": 1, "version": 0, "score": 1.0}]}], "has no text"),
    ],
)
def test_wrong_answers_are_failures(server: Server, corpus: Path, result: Any, reason: str) -> None:
    folder = build(corpus, **URL)
    answer = httpx.Response(200, json={"result": result, "status": "ok", "time": 0.0})
    server.faults = {"/collections/wiki/points/query/batch": [answer] * 3}
    with pytest.raises(SearchUnavailable, match=reason):
        search(folder, "tacoma")


def test_an_interrupted_build_is_detected_and_replaced(server: Server, corpus: Path) -> None:
    server.faults = {"/collections/wiki/points": [httpx.Response(503)] * 3}
    with pytest.raises(SearchUnavailable, match="status 503"):
        build(corpus, **URL, bulk_size=2, bulk_requests=1)
    assert not (corpus.parent / "wiki").exists()
    assert not server.config["metadata"]["searchr1"]["complete"]  # type: ignore[index]
    assert search(build(corpus, **URL), "tacoma", k=1) == [["d1"]]


def test_a_collection_that_was_made_although_nobody_heard_is_used(server: Server, corpus: Path) -> None:
    result = server._result

    def unheard(method: str, path: str, body: Any) -> Any:
        server._result = result  # type: ignore[method-assign]
        made = result(method, path, body)
        if (method, path) == ("PUT", "/collections/wiki"):
            raise httpx.ReadTimeout("slow")
        server._result = unheard  # type: ignore[method-assign]
        return made

    server._result = unheard  # type: ignore[method-assign]
    build(corpus, **URL)
    assert [request[:2] for request in server.requests].count(("PUT", "/collections/wiki")) == 1
    assert len(server.points) == 5


@pytest.mark.parametrize(
    ("change", "reason"), [("build", "another build took this"), ("metadata", "use 1.16 or newer")]
)
def test_a_foreign_hand_and_an_old_server_are_noticed(server: Server, corpus: Path, change: str, reason: str) -> None:
    result = server._result

    def other(method: str, path: str, body: Any) -> Any:
        if method == "PUT" and path.endswith("wiki") and change == "metadata":
            del body["metadata"]
        if path.endswith("count"):
            server.config["metadata"]["searchr1"]["build"] = "other"  # type: ignore[index]
        return result(method, path, body)

    server._result = other  # type: ignore[method-assign]
    with pytest.raises(UserError, match=reason):
        build(corpus, **URL)


def test_a_foreign_collection_is_left_alone_and_lost_points_are_missed(server: Server, corpus: Path) -> None:
    server.config = {"vectors": {}, "metadata": {"owner": "me"}}
    with pytest.raises(UserError, match="something that searchr1 has not made"):
        build(corpus, **URL, replace=True)
    server.config = None
    count = {"result": {"count": 4}, "status": "ok", "time": 0.0}
    server.faults = {"/collections/wiki/points/count": [httpx.Response(200, json=count)]}
    with pytest.raises(UserError, match="loaded 5 passages, the cluster counts 4"):
        build(corpus, **URL)


async def test_a_cluster_that_is_down_is_unavailable_after_the_policy() -> None:
    options = QdrantIndex("wiki", url="http://127.0.0.1:1", policy=qdrant.Policy(retries=1, backoff=0.001))
    retriever = options.open(Path(), RetrieverInfo("qdrant", 5, "h"))
    with pytest.raises(SearchUnavailable, match="gave up after 2 attempts: ResponseHandlingException"):
        await retriever.search(["q"], 3)
    with pytest.raises(UserError, match="the search engine does not work"):
        await check_retriever(retriever)
    assert retriever.counts()["failures"] == 2  # type: ignore[attr-defined]
    await retriever.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "expected either url or path"),
        ({"url": "http://x", "path": "y"}, "expected either url or path"),
        ({"url": "x"}, "expected the URL"),
        ({"url": "http://a:b@x"}, "SEARCHR1_QDRANT_API_KEY"),
        ({"path": "y", "collection": "a/b"}, "collection: expected a name"),
        ({"path": "y", "bulk_size": 0}, "bulk_size"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        QdrantIndex(**{"collection": "wiki", **options})


def test_a_qdrant_index_is_built_before_it_is_searched() -> None:
    with pytest.raises(UserError, match="a qdrant index is built from a corpus first"):
        open_retriever("qdrant:url=http://x,collection=wiki")
