from searchr1.ports import RetrieverInfo
from searchr1.retrieval.dictionary import DictionaryRetriever
from searchr1.types import Passage

A, B, C = (Passage(i, i.upper(), "text", score=1.0) for i in "abc")


async def test_it_finds_what_it_was_told_and_records_every_call() -> None:
    retriever = DictionaryRetriever({"q": [A, B], "none": []}, default=[C])
    assert await retriever.search(["q", "none", "other", "Q"], 1) == [[A], [], [C], [C]]
    assert await retriever.search(("q",), 5) == [[A, B]]
    assert retriever.calls == [(("q", "none", "other", "Q"), 1), (("q",), 5)]
    assert await retriever.info() == RetrieverInfo("dictionary", 3, "")
