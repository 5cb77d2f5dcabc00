import asyncio
import json
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.errors import SearchBudgetSpent, SearchUnavailable, UserError
from searchr1.metrics import search_metrics
from searchr1.ports import Retriever, RetrieverInfo
from searchr1.retrieval.cache import CachedRetriever
from searchr1.retrieval.counting import ASKED
from searchr1.retrieval.index import build_index
from searchr1.retrieval.spec import identity
from searchr1.types import Passage, Question

INFO = RetrieverInfo("bm25", 1000, "ab" * 32)
DUNE = Passage("1", "Dune", "A novel.", 2.5)


class Engine:
    """Finds two passages that name the query, but nothing for "nothing"; costs money; may be down."""

    def __init__(self, info: RetrieverInfo = INFO, *, cost: float = 0.0) -> None:
        self.what = info
        self.down = False
        self.calls: list[tuple[tuple[str, ...], int]] = []
        self.price, self.paid = cost, 0.0
        self.edition = 1

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        if self.down:
            raise SearchUnavailable("the network is off")
        self.calls.append((tuple(queries), k))
        self.paid += self.price * len(queries)
        return [[] if query == "nothing" else self.find(query)[:k] for query in queries]

    def find(self, query: str) -> list[Passage]:
        return [Passage(query, f"About {query}", f"{query}, edition {self.edition}", 0.1 + 0.2), DUNE]

    async def info(self) -> RetrieverInfo:
        if self.down:
            raise SearchUnavailable("the network is off")
        return self.what

    def counts(self) -> dict[str, float]:
        return {"requests": len(self.calls), "cost": self.paid}


def off() -> Engine:
    engine = Engine()
    engine.down = True
    return engine


def once(retriever: Retriever, *queries: str, k: int = 3) -> list[list[Passage]]:
    return asyncio.run(retriever.search(queries, k))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.sqlite"


async def test_record_searches_always_and_keeps_everything(path: Path) -> None:
    engine = Engine()
    cache = CachedRetriever(engine, path, "record")
    first = await cache.search(["a", "nothing", "a"], 3)
    assert first == [engine.find("a"), [], engine.find("a")]
    engine.edition = 2
    assert (await cache.search(["a"], 3))[0][0].text == "a, edition 2"
    assert engine.calls == [(("a", "nothing"), 3), (("a",), 3)]
    strict = CachedRetriever(off(), path, "strict")
    assert await strict.search(["a", "nothing"], 3) == [engine.find("a"), []]  # the last of what was recorded
    assert await strict.info() == await cache.info() == INFO


async def test_replay_searches_only_what_is_not_kept_in_one_call_and_keeps_it(path: Path) -> None:
    await CachedRetriever(Engine(), path, "record").search(["b", "d"], 3)
    engine = Engine()
    engine.edition = 2
    cache = CachedRetriever(engine, path, "replay")
    found = await cache.search(["a", "b", "c", "d", "a"], 3)
    assert engine.calls == [(("a", "c"), 3)]
    assert [passages[0].text for passages in found] == [
        "a, edition 2",
        "b, edition 1",
        "c, edition 2",
        "d, edition 1",
        "a, edition 2",
    ]
    assert await cache.search(["c"], 3) == [engine.find("c")]
    assert len(engine.calls) == 1
    found[0].clear()
    assert (await cache.search(["a"], 3))[0]


async def test_another_k_is_another_search(path: Path) -> None:
    engine = Engine()
    cache = CachedRetriever(engine, path, "replay")
    assert [len((await cache.search(["a"], k))[0]) for k in (1, 2, 1)] == [1, 2, 1]
    assert engine.calls == [(("a",), 1), (("a",), 2)]


def test_replay_and_strict_need_no_network_from_the_first_call(path: Path) -> None:
    engine = Engine()
    recorded = once(CachedRetriever(engine, path, "record"), "a", "nothing")
    for mode in ("replay", "strict"):
        cache = CachedRetriever(off(), path, mode)
        assert asyncio.run(cache.info()) == INFO
        assert once(cache, "a", "nothing") == recorded
    with pytest.raises(SearchUnavailable, match=r"^the network is off$"):
        once(CachedRetriever(off(), path, "replay"), "b")


def test_strict_says_which_query_is_missing_and_that_waiting_does_not_help(path: Path) -> None:
    once(CachedRetriever(Engine(), path, "record"), "a")
    cache = CachedRetriever(Engine(), path, "strict")
    message = (
        r"cache.sqlite: not recorded, for 3 passages: 'who \\n\?'; search.cache = replay searches and records what"
    )
    with pytest.raises(SearchBudgetSpent, match=message):
        once(cache, "who \n?")
    with pytest.raises(SearchBudgetSpent, match=r"not recorded, for 2 passages: 'a' and 1 more; "):
        once(cache, "a", "b", k=2)
    assert once(cache) == []


def test_failures_are_never_kept(path: Path) -> None:
    engine = Engine()
    cache = CachedRetriever(engine, path, "record")
    once(cache, "a")
    engine.down = True
    with pytest.raises(SearchUnavailable, match=r"the network is off"):
        once(cache, "a", "b")
    engine.down = False

    class Short(Engine):
        async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
            return (await super().search(queries, k))[:-1]

    with pytest.raises(SearchUnavailable, match=r"expected results for 2 queries, the retriever returned 1"):
        once(CachedRetriever(Short(), path, "replay"), "b", "c")
    strict = CachedRetriever(off(), path, "strict")
    assert once(strict, "a") == [engine.find("a")]
    for query in "bc":
        with pytest.raises(SearchUnavailable, match=r"not recorded"):
            once(strict, query)


class PerQuestion(Engine):
    per_question = True

    def find(self, query: str) -> list[Passage]:
        asked = ASKED.get()
        return [Passage(asked.id if asked else "", "", query)]


def test_what_depends_on_the_question_is_kept_for_the_question(path: Path) -> None:
    def ask(cache: CachedRetriever, question: Question | None) -> str:
        ASKED.set(question)
        try:
            return once(cache, "q")[0][0].id
        finally:
            ASKED.set(None)

    one, two, three = (Question(name, "?", ("a",), data) for name, data in (("1", "x"), ("2", "x"), ("1", "y")))
    engine = PerQuestion()
    cache = CachedRetriever(engine, path, "replay")
    assert cache.per_question
    assert [ask(cache, question) for question in (one, two, three, None, one)] == ["1", "2", "1", "", "1"]
    assert len(engine.calls) == 4
    strict = CachedRetriever(PerQuestion(), path, "strict")
    assert ask(strict, two) == "2"
    with pytest.raises(SearchUnavailable, match=r"not recorded"):
        ask(strict, Question("2", "?", ("a",), "y"))
    assert not CachedRetriever(Engine(), path.with_name("other"), "record").per_question


def test_hits_misses_and_the_money_that_was_saved(path: Path) -> None:
    engine = Engine(cost=0.25)
    once(engine, "before")  # not ours
    cache = CachedRetriever(engine, path, "replay")
    once(cache, "a", "b", "a")
    assert cache.counts() == {"requests": 2, "cost": 0.75, "cache_hits": 0, "cache_misses": 2, "saved": 0.0}
    once(cache, "a", "b", "c")
    once(cache, "a")
    assert cache.counts() == {"requests": 3, "cost": 1.0, "cache_hits": 3, "cache_misses": 3, "saved": 0.75}
    assert search_metrics(cache.counts())["search/cache_hit_rate"] == 0.5
    strict = CachedRetriever(off(), path, "strict")
    once(strict, "c", "a")
    assert strict.counts() == {"requests": 0, "cost": 0.0, "cache_hits": 2, "cache_misses": 0, "saved": 0.5}


async def test_what_searches_side_by_side_cost_adds_up(path: Path) -> None:
    class Slow(Engine):
        async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
            found = await super().search(queries, k)
            await asyncio.sleep(0)
            return found

    cache = CachedRetriever(Slow(cost=1.0), path, "record")
    await asyncio.gather(*(cache.search([query], 3) for query in "abcdef"))
    strict = CachedRetriever(off(), path, "strict")
    await strict.search(list("abcdef"), 3)
    assert strict.counts()["saved"] == 6.0


TEXT = st.text(st.characters(exclude_categories=()), max_size=20)  # lone surrogates and NUL, too
FLOATS = st.floats(width=64)


@given(st.lists(st.tuples(TEXT, st.lists(st.builds(Passage, TEXT, TEXT, TEXT, FLOATS), max_size=4)), max_size=6))
def test_everything_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, results: list[tuple[str, list[Passage]]]
) -> None:
    path = tmp_path_factory.mktemp("cache") / "cache.sqlite"
    told = {query.encode("utf-8", "replace").decode(): passages for query, passages in results}

    class Told(Engine):
        def find(self, query: str) -> list[Passage]:
            return told[query]

    once(CachedRetriever(Told(), path, "record"), "nothing", *told, k=4)
    found = once(CachedRetriever(off(), path, "strict"), "nothing", *told, k=4)

    def bits(passages: Sequence[Passage]) -> list[object]:
        return [(p.id, p.title, p.text, struct.pack("<d", p.score)) for p in passages]

    expected = [[] if query == "nothing" else bits(passages) for query, passages in told.items()]
    assert [bits(passages) for passages in found] == [[], *expected]


def test_more_queries_than_a_statement_takes(path: Path) -> None:
    queries = [f"query {number}" for number in range(2500)]
    engine = Engine()
    recorded = once(CachedRetriever(engine, path, "record"), *queries)
    assert once(CachedRetriever(off(), path, "strict"), *queries) == recorded
    assert len(engine.calls) == 1


def test_a_passage_that_many_queries_find_is_stored_once_and_compressed(path: Path) -> None:
    text = "The same long passage of an encyclopedia. " * 50

    class Same(Engine):
        def find(self, query: str) -> list[Passage]:
            return [Passage("1", "Same", text, len(query))]

    once(CachedRetriever(Same(), path, "record"), *(f"query {number}" for number in range(200)))
    with sqlite3.connect(path) as database:
        bodies = [body for (body,) in database.execute("SELECT body FROM passages")]
        (searches,) = database.execute("SELECT count(*) FROM searches").fetchone()
    database.close()
    assert (len(bodies), searches) == (1, 200)
    assert len(bodies[0]) < len(text) / 10


@pytest.mark.parametrize("mode", ["record", "replay", "strict"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            b"not a database, but as long as the header of one " * 30,
            r"this search cache is broken \(file is not a data",
        ),
        (b"x", "not a search cache; choose another search.cache_file"),
    ],
)
def test_what_is_no_cache_is_the_users_error(path: Path, content: bytes, reason: str, mode: str) -> None:
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"cache.sqlite: {reason}"):
        CachedRetriever(Engine(), path, mode)
    assert path.read_bytes() == content


@pytest.mark.parametrize("mode", ["record", "replay", "strict"])
def test_the_database_of_another_program_is_left_alone(path: Path, mode: str) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE mine (x)")
    database.close()
    with pytest.raises(UserError, match=r"not a search cache, but another database; choose another search.cache_file"):
        CachedRetriever(Engine(), path, mode)


@pytest.mark.parametrize("mode", ["record", "replay", "strict"])
def test_another_version_is_the_users_error(path: Path, mode: str) -> None:
    once(CachedRetriever(Engine(), path, "record"), "a")
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 7")
    database.close()
    with pytest.raises(UserError, match=r"expected a search cache of version 1, got 7; record it again, or use the"):
        CachedRetriever(Engine(), path, mode)


def test_a_file_with_holes_is_the_users_error(path: Path) -> None:
    queries = [f"query {number}" for number in range(300)]
    once(CachedRetriever(Engine(), path, "record"), *queries)
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    raw = bytearray(path.read_bytes())
    raw[8192:-4096] = b"\x55" * (len(raw) - 12288)
    broken = path.with_name("broken.sqlite")
    broken.write_bytes(raw)
    cache = CachedRetriever(off(), broken, "strict")
    with pytest.raises(UserError, match=r"broken.sqlite: this search cache is broken \(.*\); delete it and record"):
        once(cache, *queries)


def test_a_passage_that_is_gone_is_the_users_error_and_not_an_empty_result(path: Path) -> None:
    once(CachedRetriever(Engine(), path, "record"), "a")
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM passages")
    database.close()
    with pytest.raises(UserError, match=r"this search cache is broken"):
        once(CachedRetriever(off(), path, "strict"), "a")


def test_strict_without_a_recording_is_the_users_error(path: Path) -> None:
    with pytest.raises(UserError, match=r"no such search cache; run once with search.cache = record"):
        CachedRetriever(Engine(), path, "strict")
    assert not path.exists()
    CachedRetriever(Engine(), path, "record")
    with pytest.raises(UserError, match=r"nothing is recorded here; run once with search.cache = record"):
        CachedRetriever(Engine(), path, "strict")


def test_a_place_that_cannot_be_written_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file" / "cache.sqlite"):
        with pytest.raises(UserError, match=r"cannot open this search cache"):
            CachedRetriever(Engine(), path, "record")


@pytest.mark.parametrize("mode", ["record", "replay"])
def test_the_results_of_another_engine_are_refused(path: Path, mode: str) -> None:
    once(CachedRetriever(Engine(), path, "record", '{"kind": "web"}'), "a")
    for info in (
        RetrieverInfo("bm25", 1000, "cd" * 32),
        RetrieverInfo("dense", 1000, "ab" * 32),
        RetrieverInfo("bm25", 999, "ab" * 32),
    ):
        cache = CachedRetriever(Engine(info), path, mode, '{"kind": "web"}')
        with pytest.raises(
            UserError, match=r"recorded from bm25 over 1,000 passages \(abababababab\), but this engine"
        ):
            once(cache, "b")
    with pytest.raises(UserError, match=r'another search engine: expected {"kind": "x"}, got {"kind": "web"}; choose'):
        CachedRetriever(Engine(), path, mode, '{"kind": "x"}')
    with pytest.raises(UserError, match=r"another search engine"):
        CachedRetriever(off(), path, "strict")


def test_what_tells_engines_apart(tmp_path: Path) -> None:
    assert identity("http://a:1,http://b:2") == identity("http://c:3") == '{"kind": "http"}'
    table = {"kind": "rerank", "inner": "wiki.bm25", "batch_size": 5}
    assert identity(table) == '{"inner": "wiki.bm25", "kind": "rerank"}'
    (tmp_path / "corpus.jsonl").write_text('{"id": "1", "title": "Dune", "text": "A novel."}\n')
    for weight in (0.5, 0.25):
        folder = tmp_path / str(weight)
        build_index(tmp_path / "corpus.jsonl", folder, options={"title_weight": weight})
        assert json.loads(identity(str(folder)))["title_weight"] == weight


def test_threads_share_one_cache(path: Path) -> None:
    cache = CachedRetriever(Engine(), path, "replay")
    errors: list[BaseException] = []

    def work(name: int) -> None:
        try:
            for number in range(20):
                queries = [f"{name}-{number}", f"{number % 3}"]
                assert [passages[0].id for passages in once(cache, *queries)] == queries
        except BaseException as error:  # for the thread that asserts
            errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert once(CachedRetriever(off(), path, "strict"), "0-0", "3-19", "2")


async def test_the_event_loop_stays_free_while_another_process_writes(path: Path) -> None:
    cache = CachedRetriever(Engine(), path, "replay")
    await cache.search(["a"], 3)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.create_task(cache.search(["b"], 3))
    done, _ = await asyncio.wait([writing], timeout=0.1)  # the loop goes on
    assert not done
    other.execute("COMMIT")
    other.close()
    assert (await writing)[0][0].id == "b"


WRITER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_search_cache import Engine
from searchr1.retrieval.cache import CachedRetriever

async def main():
    cache = CachedRetriever(Engine(), Path(sys.argv[1]), sys.argv[2])
    sys.stdin.readline()
    for start in range(0, int(sys.argv[4]), 5):
        await cache.search([f"{{sys.argv[3]}} {{number}}" for number in range(start, start + 5)] + ["shared"], 3)
        print(start, flush=True)

asyncio.run(main())
"""


def writer(path: Path, mode: str, name: str, count: int) -> subprocess.Popen[str]:
    code = WRITER.format(tests=str(Path(__file__).parent))
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path), mode, name, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def let_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_many_processes_make_and_fill_one_file_at_once(path: Path) -> None:
    names = ["one", "two", "three", "four"]
    processes = [writer(path, "record" if number % 2 else "replay", name, 200) for number, name in enumerate(names)]
    for process in processes:
        let_go(process)
    results = [process.communicate(timeout=60) for process in processes]
    assert [error for _, error in results] == [""] * 4
    strict = CachedRetriever(off(), path, "strict")
    queries = [f"{name} {number}" for name in names for number in range(200)]
    assert once(strict, *queries) == [Engine().find(query) for query in queries]
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM searches").fetchone() == (801,)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


@pytest.mark.parametrize("lines", [1, 7, 20])
def test_a_writer_that_is_killed_breaks_nothing(path: Path, lines: int) -> None:
    process = writer(path, "record", "killed", 100_000)
    let_go(process)
    assert process.stdout is not None
    for _ in range(lines):
        written = int(process.stdout.readline())
    time.sleep(0.0007 * lines)  # anywhere in a later write
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    queries = [f"killed {number}" for number in range(written + 5)]
    assert once(CachedRetriever(off(), path, "strict"), *queries) == [Engine().find(query) for query in queries]
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
    engine = Engine()
    once(CachedRetriever(engine, path, "replay"), "killed 0", "after")
    assert engine.calls == [(("after",), 3)]
