import asyncio
import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchr1.errors import SearchR1Error, UserError
from searchr1.retrieval import bm25 as bm25_module
from searchr1.retrieval.bm25 import LANGUAGES, WITHOUT_STOP_WORDS, Bm25, Bm25Retriever
from searchr1.retrieval.index import build_index, open_index


def index(tmp_path: Path, rows: list[tuple[str, str]], **options: object) -> Bm25Retriever:
    corpus = tmp_path / "corpus.jsonl"
    lines = (json.dumps({"id": str(i), "title": title, "text": text}) for i, (title, text) in enumerate(rows))
    corpus.write_text("\n".join(lines))
    build_index(corpus, tmp_path / "index", options=options, overwrite=True)
    retriever = open_index(tmp_path / "index")
    assert isinstance(retriever, Bm25Retriever)
    return retriever


async def ids(retriever: Bm25Retriever, query: str, k: int = 10) -> list[str]:
    return [passage.id for passage in (await retriever.search([query], k))[0]]


async def test_words_match_without_case_accents_inflection_and_stop_words(tmp_path: Path) -> None:
    retriever = index(tmp_path, [("Emperor Taishō", "He ruled Japan."), ("Dogs", "A dog runs.")])
    assert await ids(retriever, "EMPERORS of the taisho") == ["0"]
    assert await ids(retriever, "running") == ["1"]
    assert await ids(retriever, "the of and a") == []
    assert await ids(retriever, "He ruled the dogs") == ["0", "1"]


async def test_the_score_is_bm25(tmp_path: Path) -> None:
    """idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / average)), k1 = 1.2, b = 0.75."""
    retriever = index(tmp_path, [("x", "apple apple pear"), ("x", "plum plum plum")], title_weight=0)
    ((passage,),) = await retriever.search(["apple"], 3)
    idf = math.log(1 + (2 - 1 + 0.5) / (1 + 0.5))
    assert passage.score == pytest.approx(idf * 2 * 2.2 / (2 + 1.2), abs=1e-4)


async def test_a_word_in_the_title_counts_a_little_more(tmp_path: Path) -> None:
    rows = [("Paris", "A city in France."), ("France", "A city, Paris.")]
    assert await ids(index(tmp_path, rows), "paris") == ["0", "1"]
    assert await ids(index(tmp_path, rows), "france") == ["1", "0"]
    equal = await index(tmp_path, rows, title_weight=0).search(["paris"], 2)
    assert [passage.score for passage in equal[0]] == [equal[0][0].score] * 2


async def test_repeating_a_word_changes_nothing(tmp_path: Path) -> None:
    retriever = index(tmp_path, [("Paris", "France"), ("Lyon", "France")])
    assert await retriever.search(["paris france"], 2) == await retriever.search(["paris paris France paris"], 2)


async def test_ties_are_broken_by_row_however_many_there_are(tmp_path: Path) -> None:
    retriever = index(tmp_path, [("Twin", "same words")] * 200)
    assert await ids(retriever, "same twin", 3) == ["0", "1", "2"]
    assert await ids(retriever, "same twin", 1000) == [str(i) for i in range(200)]


async def test_ties_are_broken_by_row_in_an_index_of_many_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The smallest heap that tantivy takes: it is full after some thousand passages of distinct words.
    monkeypatch.setattr(bm25_module, "_HEAP_BYTES", 15_000_000)
    filler = [" ".join(f"w{i}x{j}" for j in range(60)) for i in range(4000)]
    rows = [("Twin", "same words " + words) for words in filler]
    retriever = index(tmp_path, rows)
    assert retriever._searcher.num_segments > 1
    assert await ids(retriever, "same twin", 5) == ["0", "1", "2", "3", "4"]
    assert await ids(retriever, "w3999x7 same", 2) == ["3999", "0"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Bm25Retriever:
    return index(tmp_path_factory.mktemp("small"), [("a b", "c d 1 2 é"), ("AND", "OR NOT")])


@settings(max_examples=200, deadline=None)
@given(query=st.text(st.characters(), max_size=60))
def test_any_text_is_a_query(small: Bm25Retriever, query: str) -> None:
    (found,) = asyncio.run(small.search([query], 2))
    assert len(found) <= 2


async def test_a_query_of_ten_thousand_words(tmp_path: Path) -> None:
    retriever = index(tmp_path, [("Paris", "France")])
    assert await ids(retriever, " ".join(f"word{i}" for i in range(10_000)) + " paris") == ["0"]


@pytest.mark.parametrize("weight", [-0.1, 11, math.nan])
def test_a_title_weight_out_of_range_is_refused(weight: float) -> None:
    with pytest.raises(UserError, match="title_weight: expected a number from 0 to 10"):
        Bm25(title_weight=weight)


def test_english_text_is_analysed_as_ever() -> None:
    text = "The Emperors of Taishō's ponies were running; it is not a fiancée's Straße No. 7"
    expected = ["emperor", "taisho", "s", "poni", "were", "run", "fiance", "strass", "7"]
    assert Bm25().analyzer().analyze(text) == [*expected[:7], "s", *expected[7:]]
    assert Bm25(stem=False).terms(Bm25(stem=False).analyzer(), text)[:4] == ["emperors", "taisho", "s", "ponies"]
    assert Bm25(stop_words=False).analyzer().analyze("It is of the") == ["it", "is", "of", "the"]


@pytest.mark.parametrize(
    ("language", "text", "terms"),
    [
        ("german", "Für die schönen Häuser der Stadt", ["schon", "haus", "stadt"]),
        ("french", "Les élèves étaient à l'école", ["elev", "ecol"]),
        ("russian", "Каналы и реки", ["канал", "рек"]),
        ("greek", "Οι πόλεις και τα νησιά", ["οι", "πολ", "κα", "τα", "νησ"]),
        ("", "The Für élèves Каналы", ["the", "fur", "eleves", "каналы"]),
        ("", "東京タワーは高い。 寿司", ["東京タワーは高い", "寿司"]),
    ],
)
def test_a_language_has_its_own_stop_words_and_stems(language: str, text: str, terms: list[str]) -> None:
    options = Bm25(language=language)
    assert options.terms(options.analyzer(), text) == terms


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_every_language_has_what_it_is_said_to_have(language: str) -> None:
    builder = bm25_module.tantivy.TextAnalyzerBuilder(bm25_module.tantivy.Tokenizer.simple())
    if language in WITHOUT_STOP_WORDS:
        with pytest.raises(ValueError, match="No builtin stop word list"):
            builder.filter(bm25_module.tantivy.Filter.stopword(language))
    assert Bm25(language=language).analyzer().analyze("x1") == ["x1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"language": "germen"},
            "language: expected one that there is a stemmer for.*got 'germen'; did you mean 'german'",
        ),
        ({"language": "English"}, "did you mean 'english'"),
        ({"tokens": "ngram"}, "an ngram has no stem and no english stop words; set language = ''"),
    ],
)
def test_a_language_that_is_not_known_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Bm25(**options)  # type: ignore[arg-type]


async def test_the_language_stays_with_the_index(tmp_path: Path) -> None:
    retriever = index(tmp_path, [("Häuser", "Die Stadt"), ("Boote", "Das Meer")], language="german")
    assert await ids(retriever, "das Haus") == ["0"]
    assert await ids(retriever, "die") == []
    plain = index(tmp_path, [("Häuser", "Die Stadt"), ("Boote", "Das Meer")], language="")
    assert await ids(plain, "die Haus") == ["0"]  # by its stop word alone
    assert await ids(plain, "hauser") == ["0"]
    unstemmed = index(tmp_path, [("Dogs", "run"), ("Dog", "runs")], stem=False)
    assert await ids(unstemmed, "dogs") == ["0"]


async def test_ngrams_find_words_within_text_without_spaces(tmp_path: Path) -> None:
    rows = [("東京", "日本の首都は東京である。"), ("大阪", "寿司が有名な都市。"), ("กรุงเทพ", "เมืองหลวงของไทย")]
    words = index(tmp_path, rows, language="")
    assert await ids(words, "首都") == []
    grams = index(tmp_path, rows, language="", tokens="ngram")
    assert await ids(grams, "首都") == ["0", "1"]  # both have 都, one has 首都
    assert await ids(grams, "寿司はどこ") == ["1", "0"]
    assert await ids(grams, "เมืองหลวง") == ["2"]
    assert await ids(grams, "鮨") == []
    assert await ids(grams, "。 !?") == []


def test_fewer_passages_indexed_than_read_is_a_failed_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = bm25_module.tantivy.Index

    class Forgetful:
        """Indexes into a folder, shows an empty one: a writer thread that died."""

        def __init__(self, schema: object, path: str, reuse: bool) -> None:
            self._index = real(schema, path=path, reuse=reuse)
            self._empty = real(schema)

        def __getattr__(self, name: str) -> object:
            return getattr(self._empty if name == "searcher" else self._index, name)

    monkeypatch.setattr(bm25_module.tantivy, "Index", Forgetful)
    with pytest.raises(SearchR1Error, match="indexed 0 of 1 passages; is the disk full"):
        index(tmp_path, [("Paris", "France")])
    assert not (tmp_path / "index").exists()


async def test_a_large_batch_is_shared_among_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "corpus.jsonl").write_text(
        "".join(f'{{"id": "{i}", "title": "page {i}", "text": "word{i} and nothing else"}}\n' for i in range(300))
    )
    build_index(tmp_path / "corpus.jsonl", tmp_path / "index")
    retriever = open_index(tmp_path / "index")
    assert isinstance(retriever, Bm25Retriever)
    shares: list[int] = []
    search = retriever._search
    monkeypatch.setattr(retriever, "_search", lambda queries, k: shares.append(len(queries)) or search(queries, k))
    monkeypatch.setattr("searchr1.retrieval.bm25.usable_cores", lambda: 3)
    found = await retriever.search([f"word{i}" for i in range(300)], 1)
    assert [hits[0].id for hits in found] == [str(i) for i in range(300)]
    assert sorted(shares) == [100, 100, 100]
    shares.clear()
    await retriever.search(["word1"] * 64, 1)
    assert shares == [64]
