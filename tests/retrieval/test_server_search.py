"""``POST /search``, the page that asks it, and the document that describes both."""

import base64
import hashlib
import json
import re
from typing import Any

import httpx
import pytest

from searchr1.errors import SearchUnavailable
from searchr1.ports import RetrieverInfo
from searchr1.retrieval.dictionary import DictionaryRetriever
from searchr1.retrieval.serving.front_page import load_page
from searchr1.retrieval.serving.server import create_app
from searchr1.retrieval.serving.wire import Limits
from searchr1.types import Passage

PASSAGES = [Passage(f"d{row}", f"Dune {row}", f"Page {row}. A novel of Dune.", 9.0 - row) for row in range(5)]


async def ask(
    body: Any, retriever: DictionaryRetriever | None = None, **limits: Any
) -> tuple[int, Any, DictionaryRetriever]:
    retriever = retriever or DictionaryRetriever({}, PASSAGES)
    transport = httpx.ASGITransport(create_app(retriever, limits=Limits(**limits)), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://searchr1.test") as http:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = await http.post("/search", content=content)
    return response.status_code, response.json(), retriever


async def test_a_result_is_made_for_reading() -> None:
    status, answer, retriever = await ask({"query": "a dune novel", "limit": 1})
    assert status == 200
    assert answer == {
        "query": "a dune novel", "offset": 0, "limit": 1, "more": True,
        "results": [
            {
                "rank": 1, "id": "d0", "title": "Dune 0", "title_matches": [[0, 4]], "score": 9.0,
                "snippet": {"text": "Page 0. A novel of Dune.", "matches": [[10, 15], [19, 23]], "start": 0},
                "text": "Page 0. A novel of Dune.",
            }
        ],
    }  # fmt: skip
    assert retriever.calls == [(("a dune novel",), 2)]  # one more, to know whether there is more


async def test_pages_follow_one_another() -> None:
    seen, offset = [], 0
    while True:
        _, answer, _ = await ask({"query": "dune", "offset": offset, "limit": 2})
        seen.append([(found["rank"], found["id"]) for found in answer["results"]])
        if not answer["more"]:
            break
        offset += 2
    assert seen == [[(1, "d0"), (2, "d1")], [(3, "d2"), (4, "d3")], [(5, "d4")]]
    assert (await ask({"query": "dune", "offset": 50}))[1]["results"] == []
    _, last, retriever = await ask({"query": "dune", "offset": 3, "limit": 1}, topk=4)
    assert (last["more"], retriever.calls) == (False, [(("dune",), 4)])  # what may not be asked is not promised


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "expected .*missing required field `query`"),
        (b"", "expected .*"),
        ([], "expected .*got `array`"),
        (b"[" * 100_000, "expected .*"),
        ({"query": 1}, "expected .*got `int`.*query"),
        ({"query": "a" * 11}, '"query": expected at most 10 characters, got 11'),
        ({"query": "a", "limit": 0}, '"limit": expected a number from 1 to 7, got 0'),
        ({"query": "a", "limit": 8}, '"limit": expected a number from 1 to 7, got 8'),
        ({"query": "a", "offset": -1, "limit": 5}, '"offset": expected a number from 0 to 20 - limit, got -1'),
        ({"query": "a", "offset": 19, "limit": 2}, '"offset": expected a number from 0 to 20 - limit, got 19'),
        ({"query": "a", "limit": "3"}, "expected .*got `str`.*limit"),
    ],
)
async def test_a_bad_request_is_told_what_was_expected(body: Any, message: str) -> None:
    status, answer, retriever = await ask(body, query_characters=10, topk=20, page=7)
    assert (status, list(answer), retriever.calls) == (400, ["error"], [])
    assert re.search(message, answer["error"])


async def test_hostile_passages_are_text_like_any_other() -> None:
    hostile = "<script>alert(1)</script> \x00 \u202e \ud800 </p>😀 dune"
    _, answer, _ = await ask(
        {"query": "dune"}, DictionaryRetriever({}, [Passage("<b>", hostile, hostile, float("nan"))])
    )
    (found,) = answer["results"]
    shown = hostile.replace("\ud800", "?")
    assert (found["id"], found["title"], found["text"], found["score"]) == ("<b>", shown, shown, None)
    snippet = found["snippet"]
    ((start, end),) = snippet["matches"]
    assert snippet["text"][start:end] == "dune"  # code points: the emoji before it counts as one


async def get(path: str, **given: Any) -> httpx.Response:
    transport = httpx.ASGITransport(create_app(DictionaryRetriever({}, PASSAGES), **given))
    async with httpx.AsyncClient(transport=transport, base_url="http://searchr1.test") as http:
        return await http.get(path)


async def test_the_page_runs_only_its_own_script_and_asks_only_its_own_server() -> None:
    response = await get("/")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    (script,) = re.findall(r"<script>(.*?)</script>", response.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy["script-src"] == f"'sha256-{digest}'"
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|\son\w+=", response.text)
    assert not re.search(r"https?://|src=|@import|url\(", response.text)
    assert load_page()[0] == response.content


async def test_the_document_describes_this_very_server() -> None:
    response = await get("/openapi.json", limits=Limits(queries=7, topk=20, page=50))
    document = response.json()
    schemas = document["components"]["schemas"]
    assert schemas["RetrieveRequest"]["properties"]["queries"]["maxItems"] == 7
    assert schemas["SearchRequest"]["properties"]["limit"]["maximum"] == 20
    assert schemas["RetrieveRequest"]["required"] == ["queries"]
    assert "security" not in document["paths"]["/retrieve"]["post"]
    assert "401" not in document["paths"]["/retrieve"]["post"]["responses"]


async def test_health_of_an_engine_that_is_down() -> None:
    class Down(DictionaryRetriever):
        async def info(self) -> RetrieverInfo:
            raise SearchUnavailable("no route")

    transport = httpx.ASGITransport(create_app(Down({})))
    async with httpx.AsyncClient(transport=transport, base_url="http://searchr1.test") as http:
        response = await http.get("/health")
    assert (response.status_code, response.json()["error"]) == (503, "no route")
