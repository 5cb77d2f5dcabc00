import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import opensearch_stub
import pytest
from hash_encoder import HashEncoder
from opensearch_stub import Fault, Stub

from searchr1.errors import SearchUnavailable, UserError
from searchr1.ports import RetrieverInfo
from searchr1.retrieval.clusters import common as cluster
from searchr1.retrieval.clusters.common import Mark, check_free, check_same, read_mark
from searchr1.retrieval.clusters.opensearch import OpenSearch, OpenSearchIndex
from searchr1.retrieval.index import build_index, open_index, read_manifest
from searchr1.retrieval.policy import Policy
from searchr1.retrieval.spec import check_retriever, open_retriever
from searchr1.types import Passage

PASSAGES = [
    Passage("d0", "Dune", "Dune is a science fiction novel by Frank Herbert."),
    Passage("d1", "Frank Herbert", "Frank Herbert was an American author, born in Tacoma."),
    Passage("d2", "Tacoma", "Tacoma is a port city in Washington."),
    Passage("d3", "Zola", "Zola wrote Germinal."),
    Passage("d4", "Twin", "the same words"),
    Passage("d5", "Twin", "the same words"),
]
QUICK: dict[str, Any] = {"retries": 2, "backoff": 0.001, "timeout": 5.0}


@pytest.fixture(scope="module")
def server() -> Iterator[Stub]:
    with opensearch_stub.running() as running:
        yield running


@pytest.fixture
def stub(server: Stub) -> Iterator[Stub]:
    server.reset()
    yield server
    wait_for(lambda: not server.open_requests)  # those of clients that gave up, too
    assert not server.complaints


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def hash_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "load_encoder", lambda name, **options: HashEncoder())


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"id": p.id, "title": p.title, "text": p.text}) + "\n" for p in PASSAGES))
    return path


def build(stub: Stub, corpus: Path, out: str = "wiki", **options: Any) -> Path:
    folder = corpus.parent / out
    options = {"url": stub.url, "index": "wiki", "policy": QUICK, **options}
    build_index(corpus, folder, kind="opensearch", options=options)
    return folder


async def loaded(stub: Stub, corpus: Path, **options: Any) -> Path:
    return await asyncio.to_thread(lambda: build(stub, corpus, **options))


async def ids(folder: Path, query: str, k: int = 3) -> list[str]:
    async with open_index(folder) as retriever:  # type: ignore[attr-defined]
        (found,) = await retriever.search([query], k)
    return [passage.id for passage in found]


async def search(engine: OpenSearch | OpenSearchIndex, query: str = "tacoma") -> list[list[Passage]]:
    retriever = engine.open() if isinstance(engine, OpenSearch) else engine.open(Path(), RetrieverInfo("x", 6, ""))
    try:
        return await retriever.search([query], 3)
    finally:
        await retriever.aclose()  # type: ignore[attr-defined]


# Building


def test_the_index_is_made_for_loading_and_handed_over_ready(stub: Stub, corpus: Path) -> None:
    folder = build(stub, corpus, k1=0.9, b=0.4, shards=2, replicas=1, bulk_size=4)
    made = json.loads(stub.paths("/wiki")[0])
    settings = made["settings"]["index"]
    assert settings["similarity"] == {"default": {"type": "BM25", "k1": 0.9, "b": 0.4}}
    assert (settings["number_of_shards"], settings["number_of_replicas"], settings["refresh_interval"]) == (2, 0, "-1")
    assert made["mappings"]["properties"]["text"] == {"type": "text", "analyzer": "searchr1_english"}
    assert [body.count(b"\n") for body in sorted(stub.paths("/_bulk"), key=len)] == [4, 8]
    index = stub.indices["wiki"]
    assert (index.settings["refresh_interval"], index.settings["number_of_replicas"]) == (None, 1)
    manifest = read_manifest(folder)
    mark = read_mark(index.mappings["_meta"]["searchr1"])
    assert mark is not None
    assert (mark.complete, mark.passages, mark.corpus_hash) == (True, 6, manifest.corpus_hash)
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json"]
    assert stub.requests[-1][:2] == ("PUT", "/wiki/_mapping")  # the mark is the last thing that is written


async def test_words_find_passages_and_ties_keep_the_order_of_the_corpus(stub: Stub, corpus: Path) -> None:
    folder = await loaded(stub, corpus, bulk_size=1)
    assert await ids(folder, "Tacoma") == ["d2", "d1"]
    assert await ids(folder, "the same words") == ["d4", "d5"]
    assert await ids(folder, "the") == []


async def test_the_title_counts_as_much_as_it_is_told(stub: Stub, corpus: Path) -> None:
    engine = OpenSearch(stub.url, "wiki")
    await loaded(stub, corpus)
    ((boosted, *_),) = await search(replace(engine, title_boost=3.0), "dune")
    ((plain, *_),) = await search(replace(engine, title_boost=0.0), "dune")
    fields = [json.loads(body.split(b"\n")[1])["query"]["multi_match"]["fields"] for body in stub.paths("/_msearch")]
    assert fields == [["text", "title^3"], ["text"]]
    assert boosted.score > plain.score > 0


@pytest.mark.parametrize("mode", ["knn", "hybrid"])
async def test_vectors_find_passages(stub: Stub, corpus: Path, mode: str) -> None:
    folder = await loaded(stub, corpus, mode=mode, encoder="hash")
    assert (await ids(folder, "zola wrote germinal"))[0] == "d3"
    made = json.loads(stub.paths("/wiki")[0])
    assert made["mappings"]["_source"] == {"excludes": ["vector"]}
    assert made["mappings"]["properties"]["vector"]["dimension"] == 64
    searches = [json.loads(line) for line in stub.paths("/_msearch")[0].splitlines()[1::2]]
    assert [[*one["query"]] for one in searches] == [["multi_match"], ["knn"]][mode == "knn" :]
    assert [one["size"] for one in searches] == ([3] if mode == "knn" else [50, 50])


async def test_hybrid_scores_are_reciprocal_ranks(stub: Stub, corpus: Path) -> None:
    folder = await loaded(stub, corpus, mode="hybrid", encoder="hash")
    async with open_index(folder) as retriever:  # type: ignore[attr-defined]
        nothing, (first, *_) = await retriever.search([" ", "zola wrote germinal"], 2)
    assert (nothing, first.id, first.score) == ([], "d3", pytest.approx(2 / 61))


async def test_a_batch_is_one_request_for_each_batch_size_queries(stub: Stub, corpus: Path) -> None:
    await loaded(stub, corpus)
    retriever = OpenSearch(stub.url, "wiki", batch_size=2).open()
    found = await retriever.search(["tacoma", "", "zola", "nothing of this", "dune"], 1)
    assert [[p.id for p in passages] for passages in found] == [["d2"], [], ["d3"], [], ["d0"]]
    assert [body.count(b"\n") for body in stub.paths("/_msearch")] == [2, 4, 2]  # blank ones are not asked
    await retriever.aclose()  # type: ignore[attr-defined]


async def test_a_query_of_any_length_is_one_that_the_cluster_takes(stub: Stub, corpus: Path) -> None:
    folder = await loaded(stub, corpus)
    assert await ids(folder, " ".join(["a1 " * 3000, "b"])) == []
    assert await ids(folder, "dune " + "y " * 5000) == ["d0"]


# Back-pressure


def test_only_rejected_passages_are_sent_again(stub: Stub, corpus: Path) -> None:
    stub.busy.update({"1": 2, "3": 1})
    build(stub, corpus)
    sent = [[json.loads(line)["index"]["_id"] for line in body.splitlines()[::2]] for body in stub.paths("/_bulk")]
    assert sent == [["0", "1", "2", "3", "4", "5"], ["1", "3"], ["1"]]
    assert len(stub.indices["wiki"].visible) == 6


def test_a_cluster_that_stays_busy_ends_the_build(stub: Stub, corpus: Path) -> None:
    stub.busy["2"] = 99
    with pytest.raises(SearchUnavailable, match=r"gave up on 1 passages, the first is 'd2': rejected_execution"):
        build(stub, corpus)
    assert len(stub.paths("/_bulk")) == 3
    assert not (corpus.parent / "wiki").exists()


@pytest.mark.parametrize(
    "fault",
    [
        Fault("/_bulk", status=429, times=2),
        Fault("/_bulk", status=503, body=b"<html>", times=2),
        Fault("/_bulk", seconds=0.6, times=1),
        Fault("/_bulk", status=200, body=b'{"took": 1, "items": [', times=1),
        Fault("/_bulk", status=200, body=b'{"items": []}', times=1),
        Fault("/wiki", status=503, times=1),
        Fault("/_refresh", status=503, times=2),
        Fault("/_mapping", status=502, times=2),
    ],
    ids=lambda fault: f"{fault.path}-{fault.status}-{fault.body[:6]!r}",
)
def test_a_passing_failure_costs_nothing(stub: Stub, corpus: Path, fault: Fault) -> None:
    stub.faults.append(fault)
    build(stub, corpus, policy={**QUICK, "timeout": 0.4})
    assert fault.times == 0
    assert len(stub.indices["wiki"].visible) == 6


def test_an_index_that_was_made_although_nobody_heard_is_used(
    stub: Stub, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = stub._create

    def unheard(name: str, body: Any) -> Any:
        create(name, body)
        monkeypatch.undo()
        raise opensearch_stub.Bad("process_cluster_event_timeout_exception", "slow", 503, documented=True)

    monkeypatch.setattr(stub, "_create", unheard)
    build(stub, corpus)
    assert [request[:2] for request in stub.requests[1:3]] == [("PUT", "/wiki")] * 2
    assert len(stub.indices["wiki"].visible) == 6


@pytest.mark.parametrize("requests", [1, 3])
def test_no_more_requests_are_under_way_than_allowed(stub: Stub, corpus: Path, requests: int) -> None:
    stub.seconds = 0.02
    build(stub, corpus, bulk_size=1, bulk_requests=requests)
    assert stub.most_open_requests == requests


def test_refused_passages_are_named(stub: Stub, corpus: Path) -> None:
    stub.poison.add("Twin")
    with pytest.raises(UserError, match=r"refused 2 passages: 'd4': mapper_parsing_exception: .*planned.*; 'd5'"):
        build(stub, corpus)


def test_a_broken_corpus_ends_the_build_with_its_own_error(stub: Stub, corpus: Path) -> None:
    corpus.write_text(corpus.read_text() + "{broken\n")
    with pytest.raises(UserError, match=r"corpus\.jsonl:7"):
        build(stub, corpus, bulk_size=2)


# Half-built, replaced, foreign


def test_killed_while_loading_then_built_again(stub: Stub, corpus: Path) -> None:
    stub.seconds = 0.1
    code = (
        "import sys; from searchr1.retrieval.index import build_index\n"
        f"build_index({str(corpus)!r}, {str(corpus.parent / 'wiki')!r}, kind='opensearch', "
        f"options={{'url': {stub.url!r}, 'index': 'wiki', 'bulk_size': 1, 'bulk_requests': 1}})"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    wait_for(lambda: len(stub.paths("/_bulk")) >= 2 or process.poll() is not None)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not stub.open_requests)
    assert not (corpus.parent / "wiki").exists()
    mark = read_mark(stub.indices["wiki"].mappings["_meta"]["searchr1"])
    assert mark is not None
    assert not mark.complete
    stub.seconds = 0.0
    folder = build(stub, corpus)
    assert asyncio.run(ids(folder, "Tacoma")) == ["d2", "d1"]
    assert len(stub.indices["wiki"].visible) == 6


async def search_of(folder: Path) -> list[str]:
    return await ids(folder, "tacoma")


def test_a_folder_whose_index_was_lost_or_replaced_or_half_built_says_so(stub: Stub, corpus: Path) -> None:
    folder = build(stub, corpus)
    other = corpus.with_name("other.jsonl")
    other.write_text(corpus.read_text().replace("Germinal", "Nana"))
    build(stub, other, "second", replace=True)
    with pytest.raises(UserError, match=r"expected 6 passages of the corpus .*it was replaced; build it again"):
        asyncio.run(search_of(folder))
    stub.faults.append(Fault("/_refresh", status=400, times=1))
    with pytest.raises(SearchUnavailable, match="status 400"):
        build(stub, corpus, "third", replace=True)
    with pytest.raises(UserError, match="half built: its build was cut off or still runs"):
        asyncio.run(search_of(folder))
    stub.indices.clear()
    with pytest.raises(UserError, match="the cluster has no such index; build it again"):
        asyncio.run(search_of(folder))


def test_a_whole_index_is_replaced_only_on_request_and_a_foreign_one_never(stub: Stub, corpus: Path) -> None:
    build(stub, corpus)
    with pytest.raises(UserError, match="holds a whole index of 6 passages"):
        build(stub, corpus, "second")
    build(stub, corpus, "third", replace=True)
    stub.indices["wiki"].mappings.pop("_meta")
    with pytest.raises(UserError, match="something that searchr1 has not made"):
        build(stub, corpus, "fourth", replace=True)
    assert len(stub.indices["wiki"].visible) == 6


def test_two_builds_of_one_index_notice_each_other(stub: Stub, corpus: Path) -> None:
    bulk = stub.bulk

    def interrupted(name: str, rows: Any) -> Any:
        stub.indices[name].mappings["_meta"]["searchr1"]["build"] = "another"
        return bulk(name, rows)

    stub.bulk = interrupted
    with pytest.raises(UserError, match="another build took this index meanwhile"):
        build(stub, corpus)


def test_passages_that_got_lost_are_missed(stub: Stub, corpus: Path) -> None:
    bulk = stub.bulk

    def forgetful(name: str, rows: Any) -> Any:
        answer = bulk(name, rows)
        stub.indices[name].written.popitem()
        return answer

    stub.bulk = forgetful
    with pytest.raises(UserError, match="loaded 6 passages, the cluster counts 5"):
        build(stub, corpus)


def test_overwriting_replaces_the_folder_too(stub: Stub, corpus: Path) -> None:
    folder = build(stub, corpus)
    options = {"url": stub.url, "index": "wiki", "policy": QUICK, "replace": True}
    build_index(corpus, folder, kind="opensearch", options=options, overwrite=True)
    assert asyncio.run(search_of(folder)) == ["d2", "d1"]


def test_vectors_of_another_encoder_are_not_searched(stub: Stub, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build(stub, corpus, mode="knn", encoder="hash")
    monkeypatch.setattr(HashEncoder, "fingerprint", "other")
    with pytest.raises(UserError, match="made by hash-64, queries would be encoded by other"):
        asyncio.run(search_of(folder))


@pytest.mark.parametrize("raw", [None, [], {}, {"build": 3}, {"build": "x", "more": 1}])
def test_what_is_no_mark_is_foreign(raw: Any) -> None:
    with pytest.raises(UserError, match="not made"):
        check_free("here", raw, True)
    with pytest.raises(UserError, match="not made by searchr1"):
        check_same("here", raw, RetrieverInfo("x", 1, "h"))


def test_a_mark_of_the_same_corpus_fits() -> None:
    check_same("here", {"build": "b", "complete": True, "passages": 1, "corpus_hash": "h"}, RetrieverInfo("x", 1, "h"))
    assert read_mark({"build": "b"}) == Mark("b")


def test_a_refused_index_is_the_users_error(stub: Stub, corpus: Path) -> None:
    with pytest.raises(UserError, match=r"refused to make this index: mapper_parsing_exception: analyzer \[nope\]"):
        build(stub, corpus, analyzer="nope")


# Searching an index of one's own


async def test_an_index_of_ones_own_is_searched_by_its_field_names(stub: Stub) -> None:
    stub.indices["own"] = opensearch_stub.Index(
        {},
        {"properties": {"body": {"type": "text"}, "name": {"type": "text"}, "nr": {"type": "long"}}},
        visible={"a": {"nr": 7, "name": "Dune", "body": "A novel.", "more": 1}, "b": {"body": "A nameless novel."}},
    )
    spec = f"opensearch:url={stub.url},index=own,id_field=nr,title_field=name,text_field=body"
    retriever = open_retriever(spec)
    ((first, second),) = await retriever.search(["the dune novel"], 5)
    assert (first.id, first.title, first.text) == ("7", "Dune", "A novel.")
    assert (second.id, second.title, second.text) == ("b", "", "A nameless novel.")
    assert await retriever.info() == RetrieverInfo("opensearch", 2, "")
    assert b"sort" not in stub.paths("/_msearch")[0]
    await retriever.aclose()  # type: ignore[attr-defined]


async def test_wrong_field_and_index_names_are_found_out_at_the_start(stub: Stub) -> None:
    properties = {"body": {"type": "text"}}
    stub.indices["own"] = opensearch_stub.Index({}, {"properties": properties}, visible={"a": {"title": "France"}})
    for index, reason in (("own", "has no text in its field 'text'; set text_field"), ("none", "no such index")):
        retriever = open_retriever(f"opensearch:url={stub.url},index={index}", hasty=True)
        with pytest.raises(UserError, match=reason):
            await check_retriever(retriever)
        await retriever.aclose()  # type: ignore[attr-defined]


# Failures


def down() -> OpenSearch:
    return OpenSearch("http://127.0.0.1:1", "wiki", policy=Policy(retries=1, backoff=0.001, breaker_failures=2))


async def test_a_cluster_that_is_down_is_unavailable_after_the_policy() -> None:
    retriever = down().open()
    for _ in range(2):
        with pytest.raises(SearchUnavailable, match="gave up after 2 attempts: ConnectError"):
            await retriever.search(["q"], 3)
    with pytest.raises(SearchUnavailable, match="not asked"):
        await retriever.search(["q"], 3)
    assert retriever.counts()["requests"] == 4  # type: ignore[attr-defined]


ANSWERS = {
    "garbage": (b"<html>nginx</html>", "the answer is not the results of a multi-search"),
    "cut": (b'{"responses": [{"hits"', "the answer is not"),
    "fewer": (b'{"responses": []}', "asked 1 searches, got the results of 0"),
    "busy": (b'{"responses": [{"error": {"type": "rejected", "reason": "full"}, "status": 429}]}', "rejected: full"),
    "partial": (
        b'{"responses": [{"hits": {"hits": []}, "timed_out": false, "_shards": {"failed": 2}, "status": 200}]}',
        "an incomplete answer: 2 shards failed",
    ),
    "late": (b'{"responses": [{"hits": {"hits": []}, "timed_out": true, "status": 200}]}', "an incomplete answer"),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_bad_answers_are_tried_again_and_then_are_failures(stub: Stub, corpus: Path, name: str) -> None:
    body, reason = ANSWERS[name]
    engine = OpenSearch(stub.url, "wiki", policy=Policy(**QUICK))
    await loaded(stub, corpus)
    stub.faults.append(Fault("/_msearch", status=200, body=body, times=2))
    assert (await search(engine))[0][0].id == "d2"
    stub.faults.append(Fault("/_msearch", status=200, body=body, times=3))
    with pytest.raises(SearchUnavailable, match=f"gave up after 3 attempts: .*{reason}"):
        await search(engine)


async def test_what_will_not_pass_is_not_tried_again(stub: Stub) -> None:
    with pytest.raises(SearchUnavailable, match="status 404 of one search: index_not_found_exception: no such index"):
        await search(OpenSearch(stub.url, "none", policy=Policy(**QUICK)))
    assert len(stub.requests) == 1


# Credentials


def test_the_password_comes_from_the_environment_and_is_written_nowhere(
    stub: Stub, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.password = "anna:s3cret"
    with pytest.raises(SearchUnavailable, match="status 401"):
        build(stub, corpus)
    monkeypatch.setenv("SEARCHR1_OPENSEARCH_USER", "anna")
    with pytest.raises(UserError, match="or neither, got one"):
        build(stub, corpus)
    monkeypatch.setenv("SEARCHR1_OPENSEARCH_PASSWORD", "s3cret")
    folder = build(stub, corpus)
    assert asyncio.run(search_of(folder)) == ["d2", "d1"]
    assert "s3cret" not in (folder / "manifest.json").read_text()


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(UserError, match="SEARCHR1_OPENSEARCH_PASSWORD") as caught:
        OpenSearch("https://anna:s3cret@search.lab:9200", "wiki")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"url": "search.lab"}, "expected the URL of a search server"),
        ({"index": "a,b"}, "index: expected the name of one index"),
        ({"index": "_all"}, "index: expected the name of one index"),
        ({"title_boost": -1.0}, "title_boost"),
        ({"batch_size": 0}, "batch_size"),
        ({"mode": "knn"}, "encoder: mode knn needs one"),
        ({"encoder": "hash"}, "encoder: mode bm25 needs none"),
        ({"shards": 0}, "shards"),
        ({"k1": -1.0}, "k1"),
        ({"text_field": "row"}, "expected different names"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        OpenSearchIndex(**{"url": "http://x:9200", "index": "wiki", **options})


def test_certificates_that_cannot_be_read() -> None:
    with pytest.raises(UserError, match=r"certificates: cannot read 'nowhere\.pem'"):
        OpenSearch("https://x:9200", "wiki", certificates="nowhere.pem").open()


# The stand-in itself


def test_the_stand_in_allows_only_what_opensearch_documents() -> None:
    schema = pytest.importorskip("opensearch.protobufs.schemas.common_pb2", reason="needs opensearch-py")

    def names(message: str) -> set[str]:
        fields = {field.name for field in schema.DESCRIPTOR.message_types_by_name[message].fields}
        return {name.replace("x_", "_") if name.startswith("x_") else name for name in fields}

    assert {"multi_match", "knn"} <= names("QueryContainer")
    assert names("MultiMatchQuery") >= opensearch_stub.MULTI_MATCH
    assert names("KnnQuery") >= opensearch_stub.KNN
    assert names("SearchRequestBody") >= opensearch_stub.SEARCH
    assert names("IndexOperation") >= opensearch_stub.BULK_ACTION


def test_the_official_client_makes_the_same_calls(stub: Stub, corpus: Path) -> None:
    official = pytest.importorskip("opensearchpy", reason="needs opensearch-py")
    folder = build(stub, corpus)
    assert asyncio.run(search_of(folder)) == ["d2", "d1"]
    ours = {(method, path) for method, path, _ in stub.requests}
    stub.requests.clear()
    client = official.OpenSearch(stub.url)
    client.indices.delete(index="wiki")
    properties = {"id": {"type": "keyword"}, "text": {"type": "text", "analyzer": "english"}}
    client.indices.create(index="wiki", body={"settings": {"index": {}}, "mappings": {"properties": properties}})
    client.bulk(index="wiki", body=[{"index": {"_id": "9"}}, {"id": "d9", "text": "Tacoma"}])
    client.indices.put_settings(index="wiki", body={"index": {"number_of_replicas": 0}})
    client.indices.refresh(index="wiki")
    assert client.count(index="wiki")["count"] == 1
    client.indices.put_mapping(index="wiki", body={"_meta": {"by": "them"}})
    assert client.indices.get_mapping(index="wiki")["wiki"]["mappings"]["_meta"] == {"by": "them"}
    query = {"multi_match": {"query": "tacoma", "type": "most_fields", "fields": ["text"]}}
    (response,) = client.msearch(index="wiki", body=[{}, {"query": query, "size": 3, "_source": ["id"]}])["responses"]
    assert [hit["_source"] for hit in response["hits"]["hits"]] == [{"id": "d9"}]
    client.close()
    theirs = {(method, path) for method, path, _ in stub.requests}
    assert ours - theirs == {("GET", "/wiki/_count")}  # the official client counts by POST: both are documented
    assert theirs - ours == {("POST", "/wiki/_count"), ("DELETE", "/wiki")}


def test_what_is_not_documented_is_a_complaint() -> None:
    stub = Stub()
    stub.indices["wiki"] = opensearch_stub.Index({}, {"properties": {}})
    json_type = {"content-type": "application/json"}
    for method, path, body in (
        ("POST", "/wiki/_search", b"{}"),
        ("PUT", "/wiki/_settings", b'{"refresh": 1}'),
        ("POST", "/wiki/_bulk", b'{"index": {"_id": "1"}}\n{}'),
        ("POST", "/wiki/_msearch", b'{}\n{"query": {"query_string": {"query": "x"}}, "size": 1, "_source": []}\n'),
    ):
        before = len(stub.complaints)
        try:
            stub._route(method, path, body, json_type)
        except opensearch_stub.Bad as bad:
            stub.complaints.append(str(bad))
        assert len(stub.complaints) == before + 1
