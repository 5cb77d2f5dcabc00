import asyncio
import json
import logging
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.errors import SearchBudgetSpent, SearchUnavailable, UserError
from searchr1.ports import RetrieverInfo
from searchr1.retrieval.online.providers import PRICES_AS_OF, PROVIDERS, Result, read_results
from searchr1.retrieval.online.web import Web, WebRetriever
from searchr1.retrieval.options import build_options
from searchr1.retrieval.policy import Policy, TryAgainError
from searchr1.retrieval.spec import check_retriever, open_retriever
from searchr1.types import Passage

RECORDINGS = {
    name: json.loads((Path(__file__).parent / "web_recordings" / f"{name}.json").read_text(encoding="utf-8"))
    for name in PROVIDERS
}
DUNE = Passage(
    "https://en.wikipedia.org/wiki/Dune_(novel)",
    "Dune (novel) - Wikipedia",
    "Dune is a 1965 novel by Frank Herbert & the first of its series.",
    1.0,
)
HERBERT = Passage("https://example.org/herbert", "Frank Herbert", "Frank Herbert was born in Tacoma.", 0.5)
KEY = "s3cr3t-K/y+0123456789"
CX = "engine-0123456789"
EVERY = pytest.mark.parametrize("name", PROVIDERS)


class Api:
    """A provider that answers what it is told to, in turn, and remembers what it was asked; the last answer stays."""

    def __init__(self, name: str, *answers: httpx.Response | Exception) -> None:
        self.name = name
        self.answers = list(answers) or [httpx.Response(200, json=RECORDINGS[name]["found"])]
        self.requests: list[httpx.Request] = []
        self.waits: list[float] = []

    def retriever(self, policy: Policy | None = None, **options: Any) -> WebRetriever:
        async def sleep(seconds: float) -> None:
            self.waits.append(seconds)

        settings = Web(self.name, policy=policy or Policy(retries=1), **options)
        more = {"cx": CX} if self.name == "google" else {}
        transport = httpx.MockTransport(self._answer)
        return WebRetriever(settings, KEY, more, transport=transport, sleep=sleep, uniform=lambda: 0.5)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


def refusal(name: str, kind: str) -> httpx.Response:
    recorded = RECORDINGS[name][kind]
    return httpx.Response(recorded["status"], json=recorded["body"])


@EVERY
async def test_results_become_passages(name: str) -> None:
    api = Api(name)
    retriever = api.retriever()
    assert await retriever.search(["who wrote Dune"], 3) == [[DUNE, HERBERT]]
    assert await retriever.search(["who wrote Dune"], 1) == [[DUNE]]
    assert await retriever.info() == RetrieverInfo("web", 0, "")


@pytest.mark.parametrize(
    ("name", "method", "url", "header", "fields"),
    [
        ("serpapi", "GET", "https://serpapi.com/search.json", "",
         {"engine": "google", "q": "who wrote Dune", "num": "3", "gl": "xx", "hl": "yy", "api_key": KEY}),
        ("serper", "POST", "https://google.serper.dev/search", "x-api-key",
         {"q": "who wrote Dune", "num": 3, "gl": "xx", "hl": "yy"}),
        ("brave", "GET", "https://api.search.brave.com/res/v1/web/search", "x-subscription-token",
         {"q": "who wrote Dune", "count": "3", "country": "xx", "search_lang": "yy", "text_decorations": "false",
          "result_filter": "web"}),
        ("tavily", "POST", "https://api.tavily.com/search", "authorization",
         {"query": "who wrote Dune", "max_results": 3, "country": "xx", "search_depth": "basic"}),
        ("google", "GET", "https://www.googleapis.com/customsearch/v1", "",
         {"q": "who wrote Dune", "num": "3", "gl": "xx", "hl": "yy", "key": KEY, "cx": CX}),
        ("you", "GET", "https://ydc-index.io/v1/search", "x-api-key",
         {"query": "who wrote Dune", "count": "3", "country": "xx", "language": "yy"}),
    ],
)  # fmt: skip
async def test_the_request_is_the_documented_one(
    name: str, method: str, url: str, header: str, fields: dict[str, Any]
) -> None:
    api = Api(name)
    language = {} if name == "tavily" else {"language": "yy"}
    await api.retriever(country="xx", **language).search(["who wrote Dune"], 3)
    (request,) = api.requests
    parts = urlsplit(str(request.url))
    asked = json.loads(request.content) if method == "POST" else {k: v for k, (v,) in parse_qs(parts.query).items()}
    assert (request.method, f"https://{parts.netloc}{parts.path}", asked) == (method, url, fields)
    if header:
        assert request.headers[header] == ("Bearer " + KEY if name == "tavily" else KEY)
        assert KEY not in str(request.url)


@EVERY
async def test_no_more_is_asked_for_than_the_provider_gives(name: str) -> None:
    provider = PROVIDERS[name]
    api = Api(name)
    await api.retriever().search(["w " * 2000], 1000)
    (request,) = api.requests
    asked = json.loads(request.content) if provider.method == "POST" else dict(request.url.params)
    assert int(asked[provider.count]) == provider.most
    assert len(asked[provider.query]) <= provider.longest
    assert len(asked[provider.query].split()) <= provider.most_words


@EVERY
async def test_nothing_found_is_an_empty_list(name: str) -> None:
    retriever = Api(name, httpx.Response(200, json=RECORDINGS[name]["nothing"])).retriever()
    assert await retriever.search(["qzx"], 3) == [[]]
    assert retriever.counts() == {"requests": 1, "retries": 0, "failures": 0, "cost": PROVIDERS[name].price}


@EVERY
async def test_a_spent_account_is_not_asked_again(name: str) -> None:
    api = Api(name, refusal(name, "spent"))
    with pytest.raises(SearchBudgetSpent, match=r"^https://\S+: the account has nothing left \(status 4\d\d: .+add cr"):
        await api.retriever().search(["q"], 3)
    assert len(api.requests) == 1


@EVERY
async def test_a_busy_server_is_asked_again(name: str) -> None:
    api = Api(name, refusal(name, "busy"), httpx.Response(200, json=RECORDINGS[name]["found"]))
    assert await api.retriever().search(["q"], 3) == [[DUNE, HERBERT]]
    assert len(api.requests) == 2
    assert api.waits == [0.5]


@EVERY
async def test_a_refused_key_is_not_tried_again(name: str) -> None:
    api = Api(name, refusal(name, "refused"))
    with pytest.raises(SearchUnavailable, match=r": status 4\d\d: ") as caught:
        await api.retriever().search(["q"], 3)
    assert not isinstance(caught.value, SearchBudgetSpent)
    assert len(api.requests) == 1


@pytest.mark.parametrize(
    ("name", "body", "reason"),
    [
        ("serpapi", {"error": "Search timed out"}, "an error instead of results: Search timed out"),
        ("serper", {"message": "hello"}, "expected 'searchParameters' in it"),
        ("serper", [], "expected 'searchParameters' in it"),
        ("serper", {"searchParameters": {}, "organic": {}}, "expected a list of objects as 'organic'"),
        ("brave", {"type": "search", "web": {"results": [1]}}, "expected a list of objects as 'web.results'"),
        ("tavily", {"results": [{"title": 5}]}, "expected text as 'title', got 5"),
    ],
)
async def test_another_answer_is_tried_again_and_then_unavailable(name: str, body: Any, reason: str) -> None:
    api = Api(name, httpx.Response(200, json=body))
    with pytest.raises(SearchUnavailable, match=f"gave up after 2 attempts: .*{reason}"):
        await api.retriever().search(["q"], 3)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["results", "web", "type", "title", "url", "description", "snippets", "error", "x"]), inner
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from(["brave", "tavily", "you"]), JSON)
def test_any_json_is_results_or_a_reason_to_try_again(name: str, body: Any) -> None:
    try:
        found = read_results(body, PROVIDERS[name])
    except TryAgainError:
        return
    assert all(isinstance(result, Result) for result in found)
    assert all(isinstance(text, str) for result in found for text in (result.url, result.title, result.snippet))


@pytest.mark.parametrize("answer", [httpx.Response(200, html="<html>"), httpx.ConnectError("refused")], ids=str)
async def test_garbage_and_a_dead_host_are_unavailable(answer: httpx.Response | Exception) -> None:
    with pytest.raises(SearchUnavailable, match="gave up after 2 attempts"):
        await Api("serper", answer).retriever().search(["q"], 3)


async def test_queries_of_a_batch_are_asked_together_once_each_and_answered_in_order() -> None:
    asked: list[str] = []
    everyone = asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        query = json.loads(request.content)["q"]
        asked.append(query)
        if len(asked) == 3:
            everyone.set()
        await asyncio.wait_for(everyone.wait(), 5)  # passes only if all are under way at one moment
        return httpx.Response(200, json={"searchParameters": {}, "organic": [{"title": query, "link": query}]})

    retriever = WebRetriever(Web("serper"), KEY, transport=httpx.MockTransport(answer))
    found = await retriever.search(["a", "b", "a", "", "!?", "c", "\x00"], 3)
    assert [[passage.title for passage in passages] for passages in found] == [["a"], ["b"], ["a"], [], [], ["c"], []]
    assert sorted(asked) == ["a", "b", "c"]
    found[0].clear()
    assert found[2]


async def test_the_first_failure_of_a_batch_ends_it() -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        if b"bad" in request.content:
            return httpx.Response(403, json={"message": "no"})
        await asyncio.sleep(60)
        raise AssertionError("unreachable: cancelled")

    retriever = WebRetriever(Web("serper"), KEY, transport=httpx.MockTransport(answer))
    with pytest.raises(SearchUnavailable, match="status 403: "):
        await asyncio.wait_for(retriever.search(["good", "bad"], 3), 5)


async def test_equal_addresses_are_one_passage_and_results_without_one_are_kept() -> None:
    items = [{"link": "http://a", "title": "1"}, {"link": "http://a", "title": "2"}, {"title": "3", "snippet": "s"}]
    api = Api("serper", httpx.Response(200, json={"searchParameters": {}, "organic": items}))
    assert await api.retriever().search(["q"], 3) == [
        [Passage("http://a", "1", "", 1.0), Passage("serper:3", "3", "s", 0.5)]
    ]


async def test_a_long_snippet_is_cut() -> None:
    for limit, text in ((15, "Dune is a 1965"), (12, "Dune is a 19"), (64, DUNE.text)):
        ((dune, _),) = await Api("serper").retriever(max_characters=limit).search(["q"], 3)
        assert dune.text == text


async def test_money_is_counted_and_ends() -> None:
    api = Api("brave")
    retriever = api.retriever(Policy(max_cost=0.011))
    await retriever.search(["a", "b"], 3)
    with pytest.raises(SearchBudgetSpent, match=r"0\.01 of policy\.max_cost = 0\.011 is spent"):
        await retriever.search(["c"], 3)
    assert (len(api.requests), retriever.counts()["cost"]) == (2, pytest.approx(0.01))
    assert Api("brave").retriever(cost=0.0)._cost == 0.0


def chained(error: BaseException) -> str:
    """All that a traceback or a debugger may show of an error."""
    shown, links = "", [error]
    while links:
        link = links.pop()
        shown += repr(link) + str(link)
        links += [other for other in (link.__cause__, link.__context__) if other]
    return shown + "".join(traceback.format_exception(error))


@EVERY
@pytest.mark.parametrize("status", [200, 400, 402, 403, 429, 500])
async def test_keys_never_show(name: str, status: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    echo = "x" * 185 + KEY  # cut in the midst of the key
    for text in (f"bad key {KEY} for {CX}", f"GET /?api_key={httpx.QueryParams({'k': KEY})}", echo):
        api = Api(name, httpx.Response(status, json={"error": text}))
        retriever = api.retriever()
        with pytest.raises(SearchUnavailable) as caught:
            await retriever.search(["who"], 3)
        shown = chained(caught.value) + repr(retriever) + repr(vars(retriever)["_account"]) + repr(retriever.guard)
        assert KEY[:8] not in shown
        assert name != "google" or CX not in shown
    assert "HTTP Request: " in caplog.text
    assert KEY[:8] not in caplog.text
    assert CX not in caplog.text


async def test_a_key_in_the_url_never_shows_when_the_connection_fails() -> None:
    api = Api("google", httpx.ConnectError(f"cannot reach https://h/?key={httpx.QueryParams({'': KEY})}"))
    with pytest.raises(SearchUnavailable) as caught:
        await api.retriever().search(["q"], 3)
    assert KEY[:8] not in chained(caught.value)


@EVERY
def test_a_missing_key_names_its_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = PROVIDERS[name]
    for variable in (provider.variable, *provider.from_environment.values()):
        monkeypatch.setenv(provider.variable, KEY)
        monkeypatch.delenv(variable, raising=False)
        with pytest.raises(UserError, match=f"web search by {name} needs an API key: set .* variable {variable}$"):
            open_retriever(f"web:provider={name}")
    monkeypatch.setenv(provider.variable, "schlüssel")
    with pytest.raises(UserError, match=f"expected a key of printable ASCII in {provider.variable}"):
        open_retriever(f"web:provider={name}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"provider": "bing"}, "provider: there is no 'bing'; known: brave, google, serpapi, serper, tavily, you"),
        ({"provider": "serpa"}, "did you mean 'serpapi'"),
        ({"provider": "serper", "cost": -1}, "cost: expected 0 or more, got -1"),
        ({"provider": "serper", "max_characters": 0}, "max_characters: expected at least 1"),
        ({"provider": "tavily", "language": "en"}, "language: tavily cannot be told a language"),
        ({"provider": "serper", "page": {"max_bytes": 0}}, "page: expected concurrency and max_bytes of at least 1"),
        ({"provider": "serper", "page": {"timeout": 0}}, "page: expected .* timeout above 0"),
        ({}, "missing required field `provider`"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_options(Web, options, "a web search engine")


@pytest.fixture
def server() -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    """A real server that answers like serper, and what it was asked."""
    asked: list[tuple[str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            answer = json.dumps(RECORDINGS["serper"]["found"]).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{listener.server_address[1]}", asked
        listener.shutdown()
        thread.join()


async def test_over_a_real_socket(server: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    url, asked = server
    monkeypatch.setenv("SERPER_API_KEY", KEY)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")  # not used towards this machine
    retriever = open_retriever(f"web:provider=serper,base_url={url},policy.per_second=1000,policy.max_cost=1")
    assert isinstance(retriever, WebRetriever)
    async with retriever:
        assert (await check_retriever(retriever)).kind == "web"
        assert await retriever.search(["who wrote Dune"], 3) == [[DUNE, HERBERT]]
    assert [(path, headers["x-api-key"], json.loads(body)) for path, headers, body in asked] == [
        ("/search", KEY, {"q": "capital of France", "num": 1}),
        ("/search", KEY, {"q": "who wrote Dune", "num": 3}),
    ]
    assert retriever.counts() == {"requests": 2, "retries": 0, "failures": 0, "cost": pytest.approx(0.002)}


def test_the_documentation_states_the_prices() -> None:
    text = (Path(__file__).parents[2] / "docs" / "online-search.md").read_text(encoding="utf-8")
    assert PRICES_AS_OF == "2026-11"
    assert "list price a request (November 2026)" in text
    for name, provider in PROVIDERS.items():
        keys = ", ".join(f"`{variable}`" for variable in (provider.variable, *provider.from_environment.values()))
        assert f"| `{name}` | {keys} | {provider.most} | ${provider.price:.3f} |" in text
