"""The tags protocol, token by token: with bytes as tokens, and with a BPE whose tokens straddle words and tags."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_bpe import SmallBPE, chat_text

from searchr1.errors import UserError
from searchr1.ports import Tokenizer
from searchr1.protocols import PROTOCOLS, build_protocol
from searchr1.protocols.passages import _share
from searchr1.protocols.tags import CLOSE, INVALID, OPEN, Tags
from searchr1.tokenization import ByteTokenizer
from searchr1.types import Answer, Invalid, Observation, Passage, Search

BYTES = ByteTokenizer()
BPE = SmallBPE(template=False)
CHAT = SmallBPE(template=True)
TOKENIZERS = pytest.mark.parametrize("tokenizer", [BYTES, BPE], ids=["bytes", "bpe"])
DUNE = Passage("1", "Dune", "Dune is a novel.")
HERBERT = Passage("2", "Frank Herbert", "He wrote Dune.")
OBSERVED = (
    '\n\n<information>Doc 1(Title: "Dune") Dune is a novel.\nDoc 2(Title: "Frank Herbert") He wrote Dune.'
    "</information>\n\n"
)


# --- the fixed texts, which trained policies depend on


def test_fixed_texts() -> None:
    assert (OPEN, CLOSE) == ("\n\n<information>", "</information>\n\n")
    assert INVALID == (
        "\nThis is not a valid action. Write <search> query </search> to search or <answer> answer </answer> "
        "to finish.\n"
    )
    assert Tags(BYTES).stops == ("</search>", "</answer>")


@TOKENIZERS
def test_invalid_is_the_notice(tokenizer: Tokenizer) -> None:
    assert Tags(tokenizer).invalid() == Observation(tuple(tokenizer.encode(INVALID)))


# --- prompts


@TOKENIZERS
@pytest.mark.parametrize(
    ("search", "text"), [(True, "Question: Who wrote Dune?\n"), (False, "Answer now. Question: Who wrote Dune?\n")]
)
def test_short_prompt(tokenizer: Tokenizer, search: bool, text: str) -> None:
    assert Tags(tokenizer, "short").prompt(" Who wrote Dune?\n", search=search) == tokenizer.encode(text)


def test_standard_prompt_explains_the_dialogue() -> None:
    text = BYTES.decode(Tags(BYTES).prompt("Who wrote Dune?"))
    assert text.startswith("You answer questions with the help of a search engine. ")
    assert text.endswith("for example <answer> Beijing </answer>.\nQuestion: Who wrote Dune?\n")
    assert "<search> your query </search>" in text
    assert "between <information> and </information>" in text


def test_standard_prompt_without_search_offers_none() -> None:
    text = BYTES.decode(Tags(BYTES).prompt("Who wrote Dune?", search=False))
    assert text.startswith("You answer questions. First think between <think> and </think>. ")
    assert text.endswith("for example <answer> Beijing </answer>.\nQuestion: Who wrote Dune?\n")
    assert "search" not in text
    assert "information" not in text


@TOKENIZERS
def test_passages_follow_the_prompt_as_they_are_observed(tokenizer: Tokenizer) -> None:
    tags = Tags(tokenizer, "short")
    prompt = tags.prompt("Who?", search=False, passages=[DUNE, HERBERT], budget=500)
    assert prompt == tokenizer.encode("Answer now. Question: Who?\n") + tokenizer.encode(OBSERVED)
    cut = tags.prompt("Who?", search=False, passages=[DUNE, HERBERT], budget=60)
    assert cut == tokenizer.encode("Answer now. Question: Who?\n") + list(tags.observe([DUNE, HERBERT], 60).token_ids)


def test_a_question_is_not_a_template() -> None:
    assert BYTES.decode(Tags(BYTES, "short").prompt("What is {question}?")) == "Question: What is {question}?\n"


@pytest.mark.parametrize("chat", ["auto", "always"])
def test_chat_template_is_applied(chat: str) -> None:
    tags = Tags(CHAT, "short", chat)
    assert tags.prompt("Who?") == CHAT.encode(chat_text("Question: Who?\n"))
    shown = tags.prompt("Who?", search=False, passages=[DUNE, HERBERT], budget=500)
    assert shown == CHAT.encode(chat_text("Answer now. Question: Who?\n" + OBSERVED))


def test_chat_never_is_plain_text_whatever_the_tokenizer_has() -> None:
    assert Tags(CHAT, "short", "never").prompt("Who?") == CHAT.encode("Question: Who?\n")


def test_chat_without_a_template() -> None:
    assert Tags(BPE, "short", "auto").prompt("Who?") == BPE.encode("Question: Who?\n")
    with pytest.raises(UserError, match=r"^protocol\.chat is 'always' but this tokenizer has no chat template; use"):
        Tags(BPE, "short", "always").prompt("Who?")
    with pytest.raises(UserError, match=r"^protocol\.chat must be 'auto', 'always' or 'never', got 'sometimes'$"):
        Tags(BPE, "short", "sometimes")


def test_prompt_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("Frage: {question} ", encoding="utf-8")
    alone = Tags(BYTES, str(tmp_path / "mine.txt"))
    assert BYTES.decode(alone.prompt("Wer?")) == BYTES.decode(alone.prompt("Wer?", search=False)) == "Frage: Wer? "
    (tmp_path / "mine-no-search.txt").write_text("Ohne Suche: {question}", encoding="utf-8")
    both = Tags(BYTES, str(tmp_path / "mine.txt"))
    assert BYTES.decode(both.prompt("Wer?")) == "Frage: Wer? "
    assert BYTES.decode(both.prompt("Wer?", search=False)) == "Ohne Suche: Wer?"


@pytest.mark.parametrize("name", ["shrt", "", ".", "x" * 5000, "a\0b"])
def test_no_such_prompt(name: str) -> None:
    with pytest.raises(UserError, match=r"^protocol\.prompt_template: expected a text file or one of standard, short"):
        Tags(BYTES, name)


def test_a_misspelt_prompt_is_told_the_nearest() -> None:
    with pytest.raises(UserError, match=r"got 'shrt'; did you mean 'short'\?$"):
        Tags(BYTES, "shrt")


def test_broken_prompt_files_are_named(tmp_path: Path) -> None:
    good, other, binary = (tmp_path / name for name in ("a.txt", "a-no-search.txt", "b.txt"))
    good.write_text("{question}", encoding="utf-8")
    other.write_text("no place", encoding="utf-8")
    with pytest.raises(UserError, match=r"a-no-search\.txt: a prompt needs the place holder \{question\}; add it"):
        Tags(BYTES, str(good))
    binary.write_bytes(b"{question} \xff")
    with pytest.raises(UserError, match=r"b\.txt: expected a prompt as UTF-8 text: "):
        Tags(BYTES, str(binary))


def test_protocols_are_built_by_name() -> None:
    assert build_protocol("tags", BYTES, prompt_template="short") == Tags(BYTES, "short")
    assert set(PROTOCOLS) == {"tags", "tool_calls", "react_text"}
    with pytest.raises(UserError, match=r"^unknown protocol 'tag'; did you mean 'tags'\?$"):
        build_protocol("tag", BYTES)


# --- parse


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("<think> hm </think><search> Dune author </search>", Search("Dune author")),
        ("<answer>\n Frank Herbert\t</answer>", Answer("Frank Herbert")),
        ("<answer>two\nlines</answer>", Answer("two\nlines")),
        ("<answer> a < b & c </answer>", Answer("a < b & c")),
        # the first closing tag decides; whatever follows it is not read
        ("<search> one </search><answer> two </answer>", Search("one")),
        ("<answer> two </answer> and <search> one </search>", Answer("two")),
        ("<search> open <answer> two </answer>", Answer("two")),
        ("<answer> x </search> <answer> y </answer>", Invalid("</search> without <search>")),
        # it closes the last opening before it
        ("<search> a <search> b </search> c </search>", Search("b")),
        ("<think> I could <answer> now </think><answer> yes </answer>", Answer("yes")),
        # tags of the other kinds are text
        ("<answer> <b>x</b> </think> <information> y </answer>", Answer("<b>x</b> </think> <information> y")),
        ("<think><search> q </search></think>", Search("q")),
        ("<information><answer> mine </answer></information>", Answer("mine")),
        # no action
        ("", Invalid("no closing tag")),
        ("<search> unfinished", Invalid("no closing tag")),
        ("<search> q < /search>", Invalid("no closing tag")),
        ("<SEARCH> q </SEARCH>", Invalid("no closing tag")),
        ("q </search>", Invalid("</search> without <search>")),
        ("</answer><answer> late", Invalid("</answer> without <answer>")),
        ("<search></search>", Invalid("empty <search>")),
        ("<answer> \n </answer>", Invalid("empty <answer>")),
        ("<search> </search><search> q </search>", Invalid("empty <search>")),
    ],
)
def test_parse(text: str, action: Search | Answer | Invalid) -> None:
    assert Tags(BYTES).parse(text) == action


PIECES = st.sampled_from(
    [
        "<search>",
        "</search>",
        "<answer>",
        "</answer>",
        "<think>",
        "</think>",
        "<information>",
        "</information>",
        "x",
        " ",
    ]
)


@given(st.lists(PIECES, max_size=12).map("".join))
def test_parse_reads_nothing_after_the_first_closing_tag(text: str) -> None:
    tags = Tags(BYTES)
    ends = [text.find(stop) + len(stop) for stop in tags.stops if stop in text]
    action = tags.parse(text)
    assert isinstance(action, Invalid) or bool(ends)
    if ends:
        assert action == tags.parse(text[: min(ends)])


# --- observe


@TOKENIZERS
def test_observation_uncut(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(OBSERVED)
    assert Tags(tokenizer).observe([DUNE, HERBERT], len(ids)) == Observation(tuple(ids))
    assert Tags(tokenizer).observe([DUNE, HERBERT], 10_000) == Observation(tuple(ids))


@TOKENIZERS
def test_observation_of_nothing(tokenizer: Tokenizer) -> None:
    nothing = Tags(tokenizer).observe([], 100)
    assert (tokenizer.decode(nothing.token_ids), nothing.truncated) == (OPEN + CLOSE, False)


def test_observation_cut_to_an_equal_length_for_all() -> None:
    short = Passage("3", "B", "b")
    pieces = ['Doc 1(Title: "Dune") Dun', '\nDoc 2(Title: "B") b', '\nDoc 3(Title: "Frank Her']
    text = OPEN + "".join(pieces) + CLOSE
    assert [len(piece) for piece in pieces] == [24, 20, 24]
    for spare in (0, 1):  # one token cannot be shared by two
        observation = Tags(BYTES).observe([DUNE, short, HERBERT], len(text) + spare)
        assert (BYTES.decode(observation.token_ids), observation.truncated) == (text, True)


def test_observation_cut_to_the_wrapper() -> None:
    wrapper = len(OPEN + CLOSE)
    assert Tags(BYTES).observe([DUNE], wrapper) == Observation(tuple(BYTES.encode(OPEN + CLOSE)), truncated=True)
    for budget in (wrapper - 1, 0, -5):
        with pytest.raises(ValueError, match=rf"needs at least {wrapper} tokens for its wrapper, got {budget}$"):
            Tags(BYTES).observe([DUNE], budget)
    with pytest.raises(ValueError, match="for its wrapper"):
        Tags(BYTES).observe([], wrapper - 1)


class Seamed(ByteTokenizer):
    """Needs one token more where a document follows the wrapper's opening in the same text."""

    def encode(self, text: str) -> list[int]:
        return super().encode(text.replace("<information>Doc", "<information> Doc"))


def test_an_observation_that_fits_in_pieces_is_not_called_truncated() -> None:
    text = OPEN + 'Doc 1(Title: "Dune") Dune is a novel.' + CLOSE
    assert len(Seamed().encode(text)) == len(text) + 1
    assert Tags(Seamed()).observe([DUNE], len(text)) == Observation(tuple(BYTES.encode(text)), truncated=False)
    assert Tags(Seamed()).observe([DUNE], len(text) - 1).truncated


WORDS = st.text(alphabet='aé\n "<>/', max_size=60) | st.sampled_from(["Dune is a novel.", "</information>", "x" * 90])
PASSAGES = st.lists(st.builds(Passage, st.just("i"), WORDS, WORDS), max_size=4)


@TOKENIZERS
@given(passages=PASSAGES, budget=st.integers(0, 250))
def test_observation_property(tokenizer: Tokenizer, passages: list[Passage], budget: int) -> None:
    """Whole wrapper, within the budget, uncut where it fits; where not, every passage keeps as much as any cut one."""
    tags = Tags(tokenizer)
    head, tail = tuple(tokenizer.encode(OPEN)), tuple(tokenizer.encode(CLOSE))
    if budget < len(head) + len(tail):
        with pytest.raises(ValueError, match="an observation needs at least"):
            tags.observe(passages, budget)
        return
    observation = tags.observe(passages, budget)
    ids = observation.token_ids
    assert len(ids) <= budget
    docs = [f'Doc {i}(Title: "{p.title}") {p.text}' for i, p in enumerate(passages, 1)]
    whole = tokenizer.encode(OPEN + "\n".join(docs) + CLOSE)
    if len(whole) <= budget:
        assert observation == Observation(tuple(whole))
        return
    pieces = [tokenizer.encode(("\n" if i else "") + doc) for i, doc in enumerate(docs)]
    limit = max(n for n in range(budget + 1) if sum(len(piece[:n]) for piece in pieces) + len(head + tail) <= budget)
    assert ids == (*head, *(token for piece in pieces for token in piece[:limit]), *tail)
    assert observation.truncated == any(len(piece) > limit for piece in pieces)


@given(st.lists(st.integers(0, 30), max_size=6), st.integers(0, 90))
def test_share_is_the_largest_that_fits(lengths: list[int], room: int) -> None:
    limits = range(max(lengths, default=0) + 1)
    assert _share(lengths, room) == max(n for n in limits if sum(min(length, n) for length in lengths) <= room)
