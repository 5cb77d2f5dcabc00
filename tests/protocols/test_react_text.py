import pytest
from hypothesis import given
from hypothesis import strategies as st
from tool_templates import chatting

from searchr1.errors import UserError
from searchr1.protocols import build_protocol
from searchr1.protocols.react_text import INVALID, ReactText
from searchr1.tokenization import ByteTokenizer
from searchr1.types import Action, Answer, Invalid, Passage, Search

BYTES = ByteTokenizer()
REACT = ReactText(BYTES)
DUNE = Passage("1", "Dune", "By Frank Herbert.")


def text(ids: object) -> str:
    return BYTES.decode(list(ids))  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("said", "action"),
    [
        (" so\nAction: Search[Dune author]\n", Search("Dune author")),
        (" so\nAction: Finish[ Frank Herbert ]<eos>", Answer("Frank Herbert")),
        ("Action 1: search [Dune]\n", Search("Dune")),
        ("Action: Search[a [b] c]\nAction: Finish[d]", Search("a [b] c")),
        (" Search[x]\nAction: Finish[y]\n", Answer("y")),
        ("Action: Lookup[x]\n", Invalid("an unknown action 'Lookup'")),
        ("Action: Search[ ]\n", Invalid("empty Search[]")),
        ("Action: Search[Dune", Invalid("no action")),
        ("Action: Search[Du\nne]", Invalid("no action")),
        ("", Invalid("no action")),
    ],
)
def test_parsing(said: str, action: Action) -> None:
    assert REACT.parse(said) == action


@given(st.text().map(lambda text: " ".join(text.split())).filter(bool), st.booleans())
def test_what_is_written_is_read(said: str, search: bool) -> None:
    action = Search(said) if search else Answer(said)
    assert REACT.parse(REACT.write(action)) == action
    assert REACT.write(action).endswith(REACT.stops[0])


def test_prompts() -> None:
    asked = text(REACT.prompt(" Who? "))
    assert asked.startswith("Answer the question in turns of a Thought and an Action.")
    assert asked.endswith("\n\nQuestion: Who?\nThought:")
    closed = text(REACT.prompt("Who?", search=False))
    assert "Search[" not in closed
    assert closed.endswith("Question: Who?\nThought:")
    shown = text(REACT.prompt("Who?", search=False, passages=[DUNE], budget=100))
    assert shown.endswith('Question: Who?\nObservation: Doc 1(Title: "Dune") By Frank Herbert.\nThought:')
    assert text(REACT.prompt("Who?", instruction="Now.")) == "Now.\n\nQuestion: Who?\nThought:"


def test_chat_templates() -> None:
    tokenizer = chatting()
    asked = tokenizer.decode(ReactText(tokenizer).prompt("Who?"))
    assert asked.startswith("<|im_start|>user\nAnswer the question in turns")
    assert asked.endswith("Question: Who?\nThought:<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.decode(ReactText(tokenizer, chat="never").prompt("Who?")) == text(REACT.prompt("Who?"))
    with pytest.raises(UserError, match="this tokenizer has no chat template"):
        ReactText(BYTES, chat="always").prompt("Who?")
    with pytest.raises(UserError, match=r"protocol\.chat must be"):
        build_protocol("react_text", BYTES, chat="often")


def test_observations() -> None:
    whole = REACT.observe([DUNE], 100)
    assert (text(whole.token_ids), whole.truncated) == (
        'Observation: Doc 1(Title: "Dune") By Frank Herbert.\nThought:', False
    )  # fmt: skip
    cut = REACT.observe([DUNE], 45)
    assert (text(cut.token_ids), cut.truncated) == ('Observation: Doc 1(Title: "Dune") By\nThought:', True)
    with pytest.raises(ValueError, match="needs at least 22 tokens"):
        REACT.observe([], 21)
    assert text(REACT.invalid().token_ids) == f"Observation: {INVALID}\nThought:"
