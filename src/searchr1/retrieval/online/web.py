"""The ``web`` search engine: the live web through one of several paid search APIs.

    --retriever web:provider=serper,policy.max_cost=5,policy.per_second=10

Keys come from the environment alone, and stay out of errors, logs and representations.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar
from urllib.parse import quote_plus

import httpx
import msgspec

from searchr1.errors import SearchBudgetSpent, UserError, nearest
from searchr1.ports import Retriever, RetrieverInfo
from searchr1.retrieval.batching import deduplicate
from searchr1.retrieval.host import Closing, Host, check_url, decode_json, message
from searchr1.retrieval.online.keys import hide_keys_in_logs, is_local, key_from, secretly, together
from searchr1.retrieval.online.pages import Pages, PageSettings, excerpt
from searchr1.retrieval.online.providers import PROVIDERS, Provider, Result, read_results, shorten
from searchr1.retrieval.policy import Guard, Policy
from searchr1.retrieval.queries import check_k, clean
from searchr1.types import Passage

_decoder = msgspec.json.Decoder()


@dataclass(frozen=True, slots=True)
class Web:
    """The options of the ``web`` search engine."""

    provider: str
    """serpapi, serper, brave, tavily, google or you."""
    pages: bool = False
    """Download the pages found and give the part of each that fits the query best, instead of the snippet."""
    max_characters: int = 1000
    """Of the text of one passage."""
    country: str = ""
    """As the provider writes it: ``us`` (serpapi, serper, google), ``US`` (brave, you), ``united states`` (tavily)."""
    language: str = ""
    """As the provider writes it: ``en``."""
    cost: float | None = None
    """Money for one request; unless given, the provider's list price."""
    base_url: str = ""
    """Of a proxy that speaks the provider's API, instead of the provider."""
    policy: Policy = field(default_factory=Policy)
    """Of searches: ``per_second``, ``max_requests`` and ``max_cost`` are what keeps a bill small."""
    page: PageSettings = field(default_factory=PageSettings)

    def __post_init__(self) -> None:
        if self.provider not in PROVIDERS:
            raise UserError(f"provider: there is no {self.provider!r}{nearest(self.provider, PROVIDERS)}")
        if self.max_characters < 1:
            raise UserError(f"max_characters: expected at least 1, got {self.max_characters}")
        if self.cost is not None and self.cost < 0:
            raise UserError(f"cost: expected 0 or more, got {self.cost}")
        if self.language and not PROVIDERS[self.provider].language:
            raise UserError(f"language: {self.provider} cannot be told a language; leave it out")

    def open(self) -> Retriever:
        provider = PROVIDERS[self.provider]
        key, *more = [
            key_from(variable, f"web search by {self.provider}")
            for variable in (provider.variable, *provider.from_environment.values())
        ]
        return WebRetriever(self, key, dict(zip(provider.from_environment, more, strict=True)))


class WebRetriever(Closing):
    """Searches the web; a passage is ``Passage(URL, title, text, 1 / rank)``.

    All queries of a call are asked at one moment, within the policy. ``more`` are further parameters, as secret as the
    key. ``transport`` and ``guarding`` are for tests.
    """

    one_query_a_request: ClassVar[bool] = True

    def __init__(
        self,
        settings: Web,
        key: str,
        more: Mapping[str, str] | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        **guarding: Any,
    ) -> None:
        self._settings = settings
        self._provider = PROVIDERS[settings.provider]
        self._more = dict(more or {})
        secrets = (key, *self._more.values())
        self._secrets = (*secrets, *(quoted for secret in secrets if (quoted := quote_plus(secret)) != secret))
        self._cost = self._provider.price if settings.cost is None else settings.cost
        url = check_url(settings.base_url or self._provider.url)
        self.guard = Guard(url, settings.policy, **guarding)
        self._host = Host(url, self.guard, transport=transport, trust_env=not is_local(url))
        self._account = _Account(self._provider, key, url)
        self._pages = Pages(settings.page) if settings.pages else None
        hide_keys_in_logs()

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """At most ``k`` passages for each query, and at most what the provider gives in one request.

        A query without a word finds nothing and costs nothing. Raises SearchUnavailable and SearchBudgetSpent.
        """
        check_k(k)
        asked, positions = deduplicate([shorten(clean(query), self._provider) for query in queries])
        found = await together([self._search(query, k) for query in asked])
        return [list(found[position]) for position in positions]

    async def info(self) -> RetrieverInfo:
        """The web has no size and no hash."""
        return RetrieverInfo("web", 0, "")

    def counts(self) -> dict[str, float]:
        """What the guard counts, and, where pages are read, pages asked for and those that kept their snippet."""
        return {**self.guard.counts(), **(self._pages.counts() if self._pages else {})}

    async def aclose(self) -> None:
        await self._host.aclose()
        if self._pages:
            await self._pages.aclose()

    async def _search(self, query: str, k: int) -> list[Passage]:
        if not any(character.isalnum() for character in query):
            return []
        distinct: dict[str, Result] = {}
        for rank, result in enumerate(await self._results(query, min(k, self._provider.most)), 1):
            distinct.setdefault(result.url or f"{self._settings.provider}:{rank}", result)
        best = list(distinct.items())[:k]
        return await together([self._passage(query, rank, *one) for rank, one in enumerate(best, 1)])

    async def _results(self, query: str, count: int) -> list[Result]:
        provider, settings = self._provider, self._settings
        fields = {**provider.fixed, **self._more, provider.query: query, provider.count: count}
        if settings.country:
            fields[provider.country] = settings.country
        if settings.language:
            fields[provider.language] = settings.language
        request: dict[str, Any] = {"params" if provider.method == "GET" else "json": fields, "auth": self._account}
        read = partial(_read, provider)
        answer = self._host.ask(provider.method, provider.path, read, cost=self._cost, **request)
        return await secretly(answer, self._secrets)

    async def _passage(self, query: str, rank: int, identifier: str, result: Result) -> Passage:
        wanted, limit = f"{query} {result.title} {result.snippet}", self._settings.max_characters
        text = await self._pages.text(result.url, wanted, limit) if self._pages and result.url else ""
        text = text or excerpt(result.snippet, wanted, limit)
        return Passage(identifier, result.title, text, 1 / rank)


class _Account(httpx.Auth):
    """Puts the key into each request, and tells an account that is spent from a server that is merely busy."""

    def __init__(self, provider: Provider, key: str, name: str) -> None:
        self._provider, self._key, self._name = provider, key, name

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        provider = self._provider
        if provider.key_in_url:
            request.url = request.url.copy_add_param(provider.key, self._key)
        else:
            request.headers[provider.key] = provider.key_prefix + self._key
        response = yield request
        if not 400 <= response.status_code < 500:
            return
        said = (await response.aread()).decode("utf-8", "replace").lower()
        if response.status_code in provider.spent_statuses or any(words in said for words in provider.spent_words):
            raise SearchBudgetSpent(
                f"{self._name}: the account has nothing left (status {response.status_code}: {message(response)}); "
                "add credit, or replay what was recorded"
            )


def _read(provider: Provider, response: httpx.Response) -> list[Result]:
    return read_results(decode_json(response, _decoder, "search results"), provider)
