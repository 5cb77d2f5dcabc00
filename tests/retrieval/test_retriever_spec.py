from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from searchr1.errors import SearchUnavailable, UserError
from searchr1.ports import RetrieverInfo
from searchr1.retrieval.bm25 import Bm25Retriever
from searchr1.retrieval.client import HttpRetriever
from searchr1.retrieval.corpus import corpus_hash
from searchr1.retrieval.dictionary import DictionaryRetriever
from searchr1.retrieval.index import build_index
from searchr1.retrieval.policy import Policy
from searchr1.retrieval.spec import check_corpus, check_retriever, open_retriever
from searchr1.types import Passage


def test_a_folder_is_an_index_and_a_url_a_server(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"id": "1", "title": "Dune", "text": "A novel."}\n')
    build_index(tmp_path / "corpus.jsonl", tmp_path / "index")
    assert isinstance(open_retriever(str(tmp_path / "index")), Bm25Retriever)
    client = open_retriever("http://127.0.0.1:8000/retrieve")
    assert isinstance(client, HttpRetriever)
    assert client.url == "http://127.0.0.1:8000"


@pytest.mark.parametrize("spec", ["", "bm26", "no/such/folder", "localhost:8000"])
def test_anything_else_is_refused(spec: str) -> None:
    with pytest.raises(UserError, match=r"retriever: expected an index folder, a URL .*, KIND:.* file, got '"):
        open_retriever(spec)


def test_an_index_that_was_not_built_is_refused() -> None:
    with pytest.raises(UserError, match="a bm25 index is built from a corpus first: `searchr1 index build"):
        open_retriever("bm25")


def test_options_and_tables_and_files_say_the_same(tmp_path: Path) -> None:
    file = tmp_path / "search.toml"
    file.write_text('kind = "http"\nurl = "http://h"\ntoken = "a,b"\n[policy]\nretries = 2\ntimeout = 1\n')
    inline = "http:url=http://h,token='a,b',policy.retries=2,policy.timeout=1"
    for spec in (str(file), inline, {"kind": "http", "url": "http://h", "policy": {"retries": 2, "timeout": 1}}):
        client = open_retriever(spec)
        assert isinstance(client, HttpRetriever)
        assert (client.url, client.guard.policy) == ("http://h", Policy(retries=2, timeout=1.0))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("http:urll=http://h", "option 'urll' of a http search engine is unknown; did you mean 'url'"),
        ("http:url=http://h,policy.retry=2", "option 'retry' of a http search engine, policy is unknown; did you mean"),
        (
            "http:url=http://h,policy.retries=x",
            r"options of a http search engine: Expected `int`, got `str` - at ",
        ),
        ("http:url=http://h,policy.retries=-1", "policy.retries: expected 0 or more, got -1"),
        ("http:", "options of a http search engine: Object missing required field `url`"),
        ("http:url", "expected KIND:key=value,key=value, got 'http:url'"),
        ({"kind": "htp"}, "there is no kind of search engine 'htp'; did you mean 'http'"),
        ({}, "there is no kind of search engine ''"),
    ],
)
def test_wrong_options_are_refused(spec: str | dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_retriever(spec)


def test_a_hasty_retriever_gives_up_soon() -> None:
    client = open_retriever("http:url=http://h,policy.retries=0", hasty=True)
    assert isinstance(client, HttpRetriever)
    assert client.guard.policy == Policy(timeout=10.0, retries=0)


def test_a_folder_that_is_no_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not an index"):
        open_retriever(str(tmp_path))


class Wrong:
    def __init__(self, found: list[list[Passage]] | SearchUnavailable) -> None:
        self.found = found

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        if isinstance(self.found, SearchUnavailable):
            raise self.found
        return self.found

    async def info(self) -> RetrieverInfo:
        return RetrieverInfo("wrong", 1, "")


async def test_a_working_retriever_passes_also_when_it_finds_nothing() -> None:
    assert await check_retriever(DictionaryRetriever({})) == RetrieverInfo("dictionary", 0, "")
    assert await check_retriever(Wrong([[Passage("1", "t", "x")]])) == RetrieverInfo("wrong", 1, "")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (SearchUnavailable("http://h: gave up"), "does not work: http://h: gave up; start it"),
        ([], r"asked one query for one passage, got \[\] passages"),
        ([[], []], r"asked one query for one passage, got \[0, 0\] passages"),
        ([[Passage("1", "t", "x")] * 2], r"asked one query for one passage, got \[2\] passages"),
    ],
)
async def test_a_retriever_that_does_not_work_stops_the_run(
    found: list[list[Passage]] | SearchUnavailable, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        await check_retriever(Wrong(found))


async def test_a_server_that_answers_html_stops_the_run() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, html="<html>"))
    with pytest.raises(UserError, match="does not work: http://h: gave up after 1 attempt: the answer is not search"):
        await check_retriever(HttpRetriever("http://h", Policy(retries=0), transport=transport))


def test_an_index_of_another_corpus_is_refused(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"id": "1", "title": "Dune", "text": "A novel."}\n')
    info = RetrieverInfo("bm25", 1, build_index(corpus, tmp_path / "index").corpus_hash)
    check_corpus(info, corpus_hash(corpus))
    check_corpus(RetrieverInfo("http", 0, ""), corpus_hash(corpus))
    corpus.write_text('{"id": "1", "title": "Dune", "text": "A game."}\n')
    with pytest.raises(UserError, match=r"the bm25 index was built from another corpus .*; build it again"):
        check_corpus(info, corpus_hash(corpus))
