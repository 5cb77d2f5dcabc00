"""The web search APIs, each as data: where query, count and key go in, and where the results lie.

Written from the providers' public documentation. A new one is one entry of `PROVIDERS`. Prices are list prices of
`PRICES_AS_OF` in US dollars for a single request: of the smallest paid plan, so a budget errs on the safe side.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from searchr1.retrieval.host import one_line
from searchr1.retrieval.policy import TryAgainError

PRICES_AS_OF = "2026-11"
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One API. A path such as ``web.results`` leads through the JSON of an answer."""

    url: str
    path: str
    method: Literal["GET", "POST"]
    """``GET`` puts query, count and the rest into the URL, ``POST`` into a JSON body."""
    variable: str
    """The environment variable with the key."""
    key: str
    """The header that takes the key, or the parameter of the URL where ``key_in_url``."""
    key_prefix: str = ""
    key_in_url: bool = False
    query: str = "q"
    count: str = "num"
    most: int = 10
    """Results that one request may ask for at its normal price."""
    longest: int = 2048
    """Characters of a query; what is longer is cut."""
    most_words: int = 1000
    results: str
    link: str = "link"
    snippets: tuple[str, ...] = ("snippet",)
    """The first that is not empty is the text; lists are joined."""
    markup: bool = False
    """Whether titles and snippets hold HTML."""
    sign: str
    """A key that every answer has: without it the JSON is not an answer of this API."""
    price: float
    country: str = "gl"
    language: str = "hl"
    """Empty where the API does not know the option."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    from_environment: Mapping[str, str] = field(default_factory=dict)
    """Parameter -> environment variable."""
    spent_statuses: tuple[int, ...] = (402,)
    """Statuses that say that the account has nothing left."""
    spent_words: tuple[str, ...] = ()
    """What an error of another status says when the account has nothing left; case does not matter."""
    nothing_words: str = ""
    """What the ``error`` of an answer says when there is merely nothing to be found."""


PROVIDERS: Mapping[str, Provider] = {
    # https://serpapi.com/search-api, https://serpapi.com/api-status-and-error-codes
    "serpapi": Provider(
        url="https://serpapi.com", path="/search.json", method="GET", variable="SERPAPI_API_KEY",
        key="api_key", key_in_url=True, fixed={"engine": "google"}, results="organic_results", sign="search_metadata",
        price=0.025, spent_words=("run out of searches", "searches for the month"),
        nothing_words="hasn't returned any results",
    ),
    # https://serper.dev: more than ten results cost more than one credit
    "serper": Provider(
        url="https://google.serper.dev", path="/search", method="POST", variable="SERPER_API_KEY",
        key="X-API-KEY", results="organic", sign="searchParameters", price=0.001, spent_words=("not enough credits",),
    ),
    # https://api-dashboard.search.brave.com/app/documentation/web-search/get-started
    "brave": Provider(
        url="https://api.search.brave.com", path="/res/v1/web/search", method="GET", variable="BRAVE_API_KEY",
        key="X-Subscription-Token", count="count", most=20, longest=400, most_words=50,
        fixed={"text_decorations": "false", "result_filter": "web"}, results="web.results", link="url",
        snippets=("description", "extra_snippets"), markup=True, sign="type", price=0.005, country="country",
        language="search_lang", spent_words=("quota_limited", "usage_limit_exceeded"),
    ),
    # https://docs.tavily.com/documentation/api-reference/endpoint/search: a basic search is one credit
    "tavily": Provider(
        url="https://api.tavily.com", path="/search", method="POST", variable="TAVILY_API_KEY",
        key="Authorization", key_prefix="Bearer ", query="query", count="max_results", most=20, longest=400,
        fixed={"search_depth": "basic"}, results="results", link="url", snippets=("content",), sign="results",
        price=0.008, country="country", language="", spent_statuses=(402, 432, 433),
    ),
    # https://developers.google.com/custom-search/v1/reference/rest/v1/cse/list
    "google": Provider(
        url="https://www.googleapis.com", path="/customsearch/v1", method="GET", variable="GOOGLE_API_KEY",
        key="key", key_in_url=True, from_environment={"cx": "GOOGLE_CSE_ID"}, results="items", sign="kind",
        price=0.005, spent_words=("queries per day", "dailylimitexceeded"),
    ),
    # https://docs.you.com/api-reference/search
    "you": Provider(
        url="https://ydc-index.io", path="/v1/search", method="GET", variable="YDC_API_KEY",
        key="X-API-Key", query="query", count="count", most=20, results="results.web", link="url",
        snippets=("snippets", "description"), sign="results", price=0.005, country="country", language="language",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Result:
    """One result of a web search; ``url`` may be empty."""

    url: str
    title: str
    snippet: str


def shorten(query: str, provider: Provider) -> str:
    """The query within the provider's limits, in one line.

    >>> shorten("who  wrote Dune ", PROVIDERS["brave"])
    'who wrote Dune'
    """
    return " ".join(query.replace("\x00", " ").split()[: provider.most_words])[: provider.longest].strip()


def read_results(body: Any, provider: Provider) -> list[Result]:
    """The results in the JSON of an answer, best first. Raises TryAgainError for what is no answer of this API."""
    error = body.get("error") if isinstance(body, dict) else None
    if error:
        if provider.nothing_words and provider.nothing_words in str(error):
            return []
        raise TryAgainError(f"an error instead of results: {one_line(str(error))}")
    if not isinstance(body, dict) or provider.sign not in body:
        raise TryAgainError(f"the answer is not search results: expected {provider.sign!r} in it")
    found: Any = body
    for name in provider.results.split("."):
        found = found.get(name) if isinstance(found, dict) else found
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise TryAgainError(f"the answer is not search results: expected a list of objects as {provider.results!r}")
    return [_result(item, provider) for item in found]


def _result(item: dict[str, Any], provider: Provider) -> Result:
    texts = (_text(item, name, provider) for name in provider.snippets)
    snippet = next((text for text in texts if text), "")
    return Result(_text(item, provider.link, provider), _text(item, "title", provider), snippet)


def _text(item: dict[str, Any], name: str, provider: Provider) -> str:
    value = item.get(name)
    parts = value if isinstance(value, list) else [value]
    if not all(part is None or isinstance(part, str) for part in parts):
        raise TryAgainError(f"the answer is not search results: expected text as {name!r}, got {one_line(str(value))}")
    text = " ".join(part.strip() for part in parts if part)
    return html.unescape(_TAG.sub("", text)) if provider.markup and name != provider.link else text
