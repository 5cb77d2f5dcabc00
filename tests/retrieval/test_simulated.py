import asyncio
import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.errors import SearchBudgetSpent, SearchUnavailable, UserError
from searchr1.ports import RetrieverInfo
from searchr1.retrieval.counting import ASKED, per_question
from searchr1.retrieval.online.simulated import Curriculum, Simulated, SimulatedRetriever, prompt, read_documents
from searchr1.retrieval.options import build_options
from searchr1.retrieval.policy import Policy, TryAgainError
from searchr1.retrieval.spec import open_retriever
from searchr1.types import Question

QUESTION = Question("q1", "Who wrote Dune?", ("Frank Herbert", "Herbert"))
KEY = "sk-0123456789abcdef"

USEFUL = """\
You are a web search engine. Write documents that a search for the query below could return. Every document must be
useful: it holds facts that help to answer what the query asks for.

The user wants to answer: Who wrote Dune?
Accepted answers: Frank Herbert; Herbert
Together, the documents should make it known.

Query: author of {Dune}
Number of documents: 2

Each document is one paragraph of 30 to 60 words, in the style of an encyclopedia or a news page, and does not mention
the query, the question or these instructions. Write in this form and nothing else:
Doc 1: ...
Doc 2: ..."""

NOISY = """\
You are a web search engine that fails its user. Write documents that a search for the query below could return. Every
document must be plausible and close to the subject, but useless: none states or implies what the query asks for.

Query: author of {Dune}
Number of documents: 1

Each document is one paragraph of 30 to 60 words, in the style of an encyclopedia or a news page, and does not mention
the query, the question or these instructions. Write in this form and nothing else:
Doc 1: ..."""


class Model:
    """A chat server that writes what it is told to, in turn; by default, as many documents as it was asked for."""

    def __init__(self, *contents: str | httpx.Response) -> None:
        self.contents = list(contents)
        self.requests: list[httpx.Request] = []

    def retriever(self, key: str = "", policy: Policy | None = None, **options: Any) -> SimulatedRetriever:
        async def sleep(_: float) -> None:
            pass

        settings = Simulated("writer", policy=policy or Policy(retries=2), **options)
        return SimulatedRetriever(settings, key, transport=httpx.MockTransport(self._answer), sleep=sleep)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(request.content) for request in self.requests]

    @property
    def noisy(self) -> list[bool]:
        return ["fails its user" in body["messages"][0]["content"] for body in self.bodies]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        asked = json.loads(request.content)["messages"][0]["content"]
        written: str | httpx.Response = "\n".join(f"Doc {i}: Text {i}." for i in range(1, 1 + asked.count("\nDoc ")))
        if self.contents:
            written = self.contents.pop(0) if len(self.contents) > 1 else self.contents[0]
        if isinstance(written, httpx.Response):
            return httpx.Response(written.status_code, content=written.content)
        message = {"role": "assistant", "content": written}
        return httpx.Response(200, json={"id": "c1", "choices": [{"index": 0, "message": message}]})


def test_prompts_are_these() -> None:
    assert prompt("author of {Dune}", QUESTION, 2, noisy=False) == USEFUL
    assert prompt("author\nof  {Dune}", None, 1, noisy=True) == NOISY
    assert "No document may contain an accepted answer." in prompt("q", QUESTION, 1, noisy=True)
    assert "Frank Herbert; Herbert" in prompt("q", QUESTION, 1, noisy=True)


async def test_the_request_is_a_chat_completion_and_the_documents_are_passages() -> None:
    model = Model('Here they are:\nDoc 1: "Dune" is a novel\nof 1965.\n\nDoc 2(Title: "Herbert") An author.')
    ASKED.set(QUESTION)
    retriever = model.retriever(KEY, documents=2, temperature=0.5, max_tokens=99, seed=7)
    (found,) = await retriever.search(["author of {Dune}"], 3)
    assert [(p.title, p.text, p.score) for p in found] == [
        ("", '"Dune" is a novel of 1965.', 1.0),
        ("Herbert", "An author.", 0.5),
    ]
    assert len({p.id for p in found}) == 2
    assert all(p.id.startswith("simulated-") for p in found)
    (request,) = model.requests
    assert (request.method, str(request.url)) == ("POST", "http://127.0.0.1:8000/v1/chat/completions")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    (body,) = model.bodies
    assert 0 <= body.pop("seed") < 2**31
    assert body == {
        "model": "writer",
        "messages": [{"role": "user", "content": USEFUL}],
        "temperature": 0.5,
        "max_tokens": 99,
    }
    assert await retriever.info() == RetrieverInfo("simulated", 0, "")
    assert retriever.counts() == {"requests": 1, "retries": 0, "failures": 0, "cost": 0.0}
    assert per_question(retriever)


@pytest.mark.parametrize(("documents", "k", "expected"), [(5, 3, 3), (2, 3, 2), (5, 1, 1)])
async def test_never_more_than_k(documents: int, k: int, expected: int) -> None:
    model = Model()
    (found,) = await model.retriever(documents=documents).search(["q"], k)
    assert len(found) == expected
    (more,) = await Model("Doc 1: a\nDoc 2: b\nDoc 3: c").retriever(documents=2).search(["q"], 3)
    assert [passage.text for passage in more] == ["a", "b"]


async def test_queries_without_words_cost_nothing_and_equal_ones_are_written_once() -> None:
    model = Model()
    found = await model.retriever(documents=1).search(["", "a", "!?", "a", "\ud800"], 3)
    assert [len(passages) for passages in found] == [0, 1, 0, 1, 0]
    assert len(model.requests) == 1
    assert await model.retriever().search([], 3) == []


async def test_the_same_question_and_query_make_the_same_request_in_any_order() -> None:
    ASKED.set(QUESTION)
    queries = [f"query {i}" for i in range(50)]
    first, second = Model(), Model()
    await first.retriever(noise=0.5, seed=3).search(queries, 3)
    again = second.retriever(noise=0.5, seed=3)
    for query in reversed(queries):
        await again.search([query], 3)
    assert sorted(first.bodies, key=str) == sorted(second.bodies, key=str)
    assert 0 < sum(first.noisy) < 50
    other = Model()
    await other.retriever(noise=0.5, seed=4).search(queries, 3)
    assert other.noisy != first.noisy


async def test_noise_belongs_to_the_question_too() -> None:
    noisy: list[list[bool]] = []
    for identifier in ("q1", "q2"):
        ASKED.set(Question(identifier, "Who wrote Dune?", ("Frank Herbert",)))
        model = Model()
        for i in range(50):
            await model.retriever(noise=0.5).search([f"query {i}"], 1)
        noisy.append(model.noisy)
    assert noisy[0] != noisy[1]


@pytest.mark.parametrize(("noise", "low", "high"), [(0.0, 0, 0), (0.25, 195, 305), (0.7, 642, 758), (1.0, 1000, 1000)])
async def test_the_share_of_noise_is_the_probability(noise: float, low: int, high: int) -> None:
    """Within four standard deviations of a binomial over 1,000 queries."""
    model = Model()
    await model.retriever(noise=noise, documents=1).search([f"query {i}" for i in range(1000)], 1)
    assert low <= sum(model.noisy) <= high


def test_the_curriculum_is_the_papers() -> None:
    ramp = Curriculum(start=0.25, end=0.75, base=4.0, over_queries=200)
    assert ramp.probability(0) == 0.25
    assert ramp.probability(100) == pytest.approx(0.25 + 0.5 * (4**0.5 - 1) / 3)  # 0.41667
    assert ramp.probability(200) == pytest.approx(0.75)
    assert ramp.probability(10_000) == pytest.approx(0.75)
    assert Curriculum(start=0.8, end=0.2, base=1, over_queries=10).probability(5) == pytest.approx(0.5)
    assert Simulated("m", noise=0.3).probability(10**9) == 0.3


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 100), st.integers(1, 1000), st.integers(0, 2000))
def test_the_curriculum_stays_between_its_ends(start: float, end: float, base: float, over: int, served: int) -> None:
    probability = Curriculum(start, end, base, over).probability(served)
    assert min(start, end) - 1e-9 <= probability <= max(start, end) + 1e-9


async def test_noise_grows_with_the_queries_served() -> None:
    model = Model()
    retriever = model.retriever(documents=1, curriculum=Curriculum(0.0, 1.0, 4.0, 300))
    for start in range(0, 400, 100):
        await retriever.search([f"query {i}" for i in range(start, start + 100)], 1)
    shares = [sum(model.noisy[start : start + 100]) for start in range(0, 400, 100)]
    assert shares[0] < shares[1] < shares[2] < shares[3] == 100


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Doc 1: a\nDoc 2: b", [("", "a"), ("", "b")]),
        ("<think>\nDoc 1: no\n</think>\n\nDoc 1: a\nDoc 2: b", [("", "a"), ("", "b")]),
        ("**Doc 1:** a\n\n**Doc 2:** b", [("", "a"), ("", "b")]),
        ("### Document 1\na\n### Document 2\nb", [("", "a"), ("", "b")]),
        ("- [Doc 1] a\n- [Doc 2] b", [("", "a"), ("", "b")]),
        ("doc 1. a: see Doc 7\ndoc 2) b", [("", "a: see Doc 7"), ("", "b")]),
        ('Doc 1(Title: "T") a\nDoc 2 (Title: U): b', [("T", "a"), ("U", "b")]),
        ("Doc 1:\nTitle: T\na\nDoc 2: **Title:** U\nb", [("T", "a"), ("U", "b")]),
        ("Doc 1: a\nDoctors agree.\nDoc 2: b\nDoc 3: c", [("", "a Doctors agree."), ("", "b")]),
    ],
)
def test_documents_are_read_in_many_forms(text: str, expected: list[tuple[str, str]]) -> None:
    assert [(passage.title, passage.text) for passage in read_documents(text, 2)] == expected


BAD = [
    "",
    "I cannot do that.",
    "Doc 1: a",
    "Doc 1: a\nDoc 3: b",
    "Doc 2: a\nDoc 1: b",
    "Doc 1:\nDoc 2: b",
    "<think>Doc 1: a",
]


@pytest.mark.parametrize("text", BAD)
async def test_malformed_answers_are_tried_again_with_another_seed_and_then_unavailable(text: str) -> None:
    with pytest.raises(TryAgainError):
        read_documents(text, 2)
    model = Model(text, text, "Doc 1: a\nDoc 2: b")
    retriever = model.retriever(documents=2)
    (found,) = await retriever.search(["q"], 3)
    assert [passage.text for passage in found] == ["a", "b"]
    seeds = [body["seed"] for body in model.bodies]
    assert [seed - seeds[0] for seed in seeds] == [0, 1, 2]
    assert retriever.counts()["retries"] == 2
    with pytest.raises(
        SearchUnavailable, match=r"gave up after 3 attempts: (expected 2 documents|document 1 is empty)"
    ):
        await Model(text).retriever(documents=2).search(["q"], 3)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (httpx.Response(200, json={"choices": []}), "expected 5 documents as 'Doc 1: ...', the model wrote: nothing"),
        (httpx.Response(200, json={"choices": [{"message": {"content": None}}]}), "the model wrote: nothing"),
        (httpx.Response(200, text="<html>"), "the answer is not a chat completion"),
        (httpx.Response(503), "gave up after 3 attempts: status 503"),
        (httpx.Response(401, json={"error": {"message": f"Incorrect API key: {KEY}"}}), r"status 401: .*: \*\*\*"),
        (httpx.Response(500, json={"error": KEY}), r"status 500: \*\*\*"),
    ],
)
async def test_other_answers_are_unavailable_and_keys_never_show(answer: httpx.Response, reason: str) -> None:
    with pytest.raises(SearchUnavailable, match=reason) as caught:
        await Model(answer).retriever(KEY).search(["q"], 10)
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@given(st.text(alphabet="Doc 123:\\n*[]().T") | st.text(), st.integers(1, 3))
def test_any_text_is_documents_or_a_reason_to_try_again(text: str, count: int) -> None:
    try:
        found = read_documents(text, count)
    except TryAgainError:
        return
    assert len(found) == count
    assert all(passage.text for passage in found)


async def test_money_ends() -> None:
    retriever = Model().retriever(policy=Policy(max_cost=0.05), cost=0.02)
    await retriever.search(["a", "b"], 1)
    with pytest.raises(SearchBudgetSpent):
        await retriever.search(["c"], 1)
    assert retriever.counts()["cost"] == pytest.approx(0.04)


async def test_tasks_of_different_questions_do_not_mix() -> None:
    model = Model()
    retriever = model.retriever()

    async def ask(question: Question) -> None:
        ASKED.set(question)
        await retriever.search(["q"], 1)

    await asyncio.gather(*(asyncio.create_task(ask(Question(str(i), f"Q{i}?", (f"A{i}",)))) for i in range(8)))
    contents = [body["messages"][0]["content"] for body in model.bodies]
    assert all(f"answer: Q{i}?\nAccepted answers: A{i}\n" in content for i, content in enumerate(contents))


def test_only_a_server_elsewhere_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert isinstance(open_retriever("simulated:model=m"), SimulatedRetriever)
    assert isinstance(open_retriever("simulated:model=m,base_url=https://h/v1,key_env="), SimulatedRetriever)
    with pytest.raises(UserError, match=r"the server https://h/v1 needs an API key: set .* variable OPENAI_API_KEY"):
        open_retriever("simulated:model=m,base_url=https://h/v1")
    monkeypatch.setenv("MY_KEY", KEY)
    assert isinstance(open_retriever("simulated:model=m,base_url=https://h/v1,key_env=MY_KEY"), SimulatedRetriever)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": 1.5}, "noise: expected a probability, got 1.5"),
        ({"curriculum": {"end": -0.1, "over_queries": 5}}, "curriculum.end: expected a probability"),
        ({"curriculum": {"base": 0, "over_queries": 5}}, "expected a base above 0"),
        ({"curriculum": {"end": 0.5}}, "curriculum.over_queries: expected the number of queries"),
        ({"noise": 0.5, "curriculum": {"end": 0.5, "over_queries": 5}}, "expected noise or curriculum.over_queries"),
        ({"curriculum": {"over_query": 5}}, "option 'over_query' .* is unknown; did you mean 'over_queries'"),
        ({"documents": 0}, "expected documents and max_tokens of at least 1"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_options(Simulated, {"model": "m", **options}, "a simulated search engine")
