"""The ``simulated`` search engine: documents that a language model writes, as in ZeroSearch (Sun et al. 2025).

    --retriever simulated:model=Qwen/Qwen2.5-14B-Instruct,base_url=http://127.0.0.1:8000/v1,noise=0.25

The model, behind any server of OpenAI's chat API, is asked for useful documents or, with the probability ``noise``, for
plausible ones that do not help. ZeroSearch (arXiv:2505.04588) raises that probability with the training step. A search
engine does not know the step, so `Curriculum` counts the queries it was asked instead: it starts anew when a run is
resumed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, ClassVar

import httpx
import msgspec

from searchr1.errors import UserError
from searchr1.ports import Retriever, RetrieverInfo
from searchr1.retrieval.batching import deduplicate
from searchr1.retrieval.counting import ASKED
from searchr1.retrieval.host import Closing, Host, check_url, decode_json, one_line
from searchr1.retrieval.online.keys import is_local, key_from, secretly, together
from searchr1.retrieval.policy import Guard, Policy, TryAgainError
from searchr1.retrieval.queries import check_k, clean
from searchr1.seeds import derive_seed
from searchr1.types import Passage, Question

_SEED_BITS = 31  # servers take 32-bit seeds
# "Doc 2: ...", "**Document 2:** ...", 'Doc 2(Title: "Dune") ...', "[Doc 2] ..."
_DOCUMENT = re.compile(
    r"^[ \t#*>\[-]*Doc(?:ument)?[ \t]*\[?#?(\d{1,4})\]?[ \t*]*"
    r"(?:\(Title:[ \t]*\"?(.*?)\"?[ \t]*\)[ \t*]*:?|[:.)\]-]|$)[ \t*]*",
    re.IGNORECASE | re.MULTILINE,
)
_TITLE = re.compile(r"\**Title:\**[ \t]*\"?(.+?)\"?[ \t*]*\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Curriculum:
    """How the probability of noise grows from ``start`` to ``end`` over ``over_queries`` queries, and stays there.

    >>> ramp = Curriculum(start=0.0, end=0.6, over_queries=100)
    >>> [round(ramp.probability(served), 3) for served in (0, 50, 100, 1000)]
    [0.0, 0.2, 0.6, 0.6]
    """

    start: float = 0.0
    end: float = 0.0
    base: float = 4.0
    """The larger, the later the growth; 1 is a straight line."""
    over_queries: int = 0
    """0: no curriculum, ``noise`` holds throughout."""

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"curriculum.{name}: expected a probability, got {getattr(self, name)}")
        if self.base <= 0 or self.over_queries < 0:
            raise UserError("curriculum: expected a base above 0 and over_queries of at least 0")

    def probability(self, served: int) -> float:
        """Of noise after ``served`` queries."""
        done = min(served / self.over_queries, 1.0) if self.over_queries else 1.0
        # Sun et al. 2025, arXiv:2505.04588, curriculum of noise: p_i = p_s + (b^(i/m) - 1) / (b - 1) * (p_e - p_s)
        share = done if self.base == 1 else (self.base**done - 1) / (self.base - 1)
        return self.start + share * (self.end - self.start)


@dataclass(frozen=True, slots=True)
class Simulated:
    """The options of the ``simulated`` search engine."""

    model: str
    base_url: str = "http://127.0.0.1:8000/v1"
    """Of the server, up to what comes before ``/chat/completions``."""
    key_env: str = "OPENAI_API_KEY"
    """The environment variable with the key; a server on this machine needs none."""
    documents: int = 5
    """Written for one query at most; never more than the search asks for."""
    temperature: float = 0.8
    max_tokens: int = 1024
    seed: int = 0
    """Decides, with the question and the query, what the model samples and which queries get noise."""
    noise: float = 0.0
    """The probability that a query gets useless documents."""
    curriculum: Curriculum = field(default_factory=Curriculum)
    """Instead of ``noise``: a probability that grows."""
    cost: float = 0.0
    """Money for one request, counted against ``policy.max_cost``."""
    policy: Policy = field(default_factory=Policy)

    def __post_init__(self) -> None:
        if not 0 <= self.noise <= 1:
            raise UserError(f"noise: expected a probability, got {self.noise}")
        if self.noise and self.curriculum.over_queries:
            raise UserError("expected noise or curriculum.over_queries, got both; curriculum.start is where it starts")
        if self.curriculum != Curriculum() and not self.curriculum.over_queries:
            raise UserError("curriculum.over_queries: expected the number of queries it takes, at least 1")
        if self.documents < 1 or self.max_tokens < 1 or self.temperature < 0 or self.cost < 0:
            raise UserError("expected documents and max_tokens of at least 1, temperature and cost of at least 0")

    def open(self) -> Retriever:
        optional = not self.key_env or (is_local(check_url(self.base_url)) and not os.environ.get(self.key_env))
        return SimulatedRetriever(self, "" if optional else key_from(self.key_env, f"the server {self.base_url}"))

    def probability(self, served: int) -> float:
        """Of useless documents, after ``served`` queries."""
        return self.curriculum.probability(served) if self.curriculum.over_queries else self.noise


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Completion(msgspec.Struct):
    choices: list[_Choice]


_decoder = msgspec.json.Decoder(_Completion)


class SimulatedRetriever(Closing):
    """Asks a language model to write what a search would find for the running question (`ASKED`).

    A passage is ``Passage("simulated-" + hash, title, text, 1 / rank)``; the title is empty unless the model wrote one.
    ``transport`` and ``guarding`` are for tests.
    """

    per_question: ClassVar[bool] = True

    def __init__(
        self, settings: Simulated, key: str = "", *, transport: httpx.AsyncBaseTransport | None = None, **guarding: Any
    ) -> None:
        url = check_url(settings.base_url)
        self._settings = settings
        self._secrets = (key,) if key else ()
        self.guard = Guard(url, settings.policy, **guarding)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._host = Host(url, self.guard, headers=headers, transport=transport, trust_env=not is_local(url))
        self._served = 0

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """The smaller of ``k`` and ``documents`` passages for each query; none for one without a word.

        Raises SearchUnavailable, also when the model keeps writing something else than numbered documents.
        """
        check_k(k)
        asked = ASKED.get()
        distinct, positions = deduplicate([clean(query) for query in queries])
        found = await together([self._search(query, asked, k) for query in distinct])
        return [list(found[position]) for position in positions]

    async def info(self) -> RetrieverInfo:
        return RetrieverInfo("simulated", 0, "")

    def counts(self) -> dict[str, float]:
        return self.guard.counts()

    async def aclose(self) -> None:
        await self._host.aclose()

    async def _search(self, query: str, question: Question | None, k: int) -> list[Passage]:
        if not any(character.isalnum() for character in query):
            return []
        settings = self._settings
        served, self._served = self._served, self._served + 1
        seed = derive_seed(settings.seed, "simulated", question.id if question else "", query)
        noisy = derive_seed(seed, "noise") / 2**63 < settings.probability(served)
        count = min(k, settings.documents)
        body: dict[str, Any] = {
            "model": settings.model,
            "messages": [{"role": "user", "content": prompt(query, question, count, noisy=noisy)}],
            "temperature": settings.temperature,
            "max_tokens": settings.max_tokens,
            "seed": seed % 2**_SEED_BITS,
        }

        def read(response: httpx.Response) -> list[Passage]:
            choices = decode_json(response, _decoder, "a chat completion").choices
            try:
                return read_documents(choices[0].message.content or "" if choices else "", count)
            except TryAgainError:
                body["seed"] = (body["seed"] + 1) % 2**_SEED_BITS  # the same seed would write the same again
                raise

        answer = self._host.ask("POST", "/chat/completions", read, cost=settings.cost, json=body)
        return await secretly(answer, self._secrets)


def prompt(query: str, question: Question | None, count: int, *, noisy: bool) -> str:
    """What the model is told; the question and its answers where they are known."""
    purpose = ""
    if question:
        answers = "; ".join(question.answers)
        use = "No document may contain an accepted answer" if noisy else "Together, the documents should make it known"
        purpose = f"\nThe user wants to answer: {question.text}\nAccepted answers: {answers}\n{use}.\n"
    form = "\n".join(f"Doc {number}: ..." for number in range(1, count + 1))
    template = _template("simulated_noisy.txt" if noisy else "simulated_useful.txt")
    # One pass over the template, so that a query with braces in it is only text.
    return template.format(count=count, purpose=purpose, query=" ".join(query.split()), form=form).strip()


def read_documents(text: str, count: int) -> list[Passage]:
    """The first ``count`` documents, numbered from 1, in what the model wrote. Raises TryAgainError for anything else.

    >>> [(p.title, p.text) for p in read_documents('Doc 1: A novel.\\nDoc 2(Title: "Dune") By Herbert.', 2)]
    [('', 'A novel.'), ('Dune', 'By Herbert.')]
    """
    written = text.rpartition("</think>")[2]
    marks = list(_DOCUMENT.finditer(written))
    numbers = [int(mark[1]) for mark in marks[:count]]
    if numbers != list(range(1, count + 1)):
        raise TryAgainError(
            f"expected {count} documents as 'Doc 1: ...', the model wrote: {one_line(text) or 'nothing'}"
        )
    ends = [mark.start() for mark in marks[1:]] + [len(written)]
    return [_passage(mark, written[mark.end() : end]) for mark, end in zip(marks[:count], ends, strict=False)]


def _passage(mark: re.Match[str], body: str) -> Passage:
    number, title = int(mark[1]), mark[2] or ""
    if not title and (line := _TITLE.match(body.lstrip())):
        title, body = line[1], body.lstrip()[line.end() :]
    text = " ".join(body.split())
    if not text:
        raise TryAgainError(f"document {number} is empty")
    digest = hashlib.blake2b(f"{number}\n{title}\n{text}".encode("utf-8", "replace"), digest_size=8).hexdigest()
    return Passage(f"simulated-{digest}", title, text, 1 / number)


@cache
def _template(name: str) -> str:
    return resources.files("searchr1.retrieval.online").joinpath(name).read_text(encoding="utf-8")
