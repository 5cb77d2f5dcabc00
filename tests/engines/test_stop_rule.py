from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from searchr1.engines.stops import StopRule
from searchr1.tokenization import ByteTokenizer

BYTES = ByteTokenizer()


def first_stop(text: bytes, stops: Sequence[str]) -> int | None:
    rule = StopRule(stops, BYTES)
    return next((end for end in range(1, len(text) + 1) if rule.completed(list(text[:end]))), None)


def test_the_tag_is_found_at_its_last_token() -> None:
    assert first_stop(b"a > b </search> c", ("</search>", "</answer>")) == len(b"a > b </search>")


def test_a_last_character_split_over_tokens_is_found() -> None:
    assert first_stop("a»b".encode(), ("»",)) == 3


def test_a_stop_that_ends_in_white_space_is_found() -> None:
    assert first_stop(b"a\n\nb", ("\n\n",)) == 3


def test_no_stops_and_empty_stops_never_stop() -> None:
    assert first_stop(b"abc", ()) is None
    assert first_stop(b"abc", ("",)) is None


class Words:
    """Several characters a token, white space at the start of what is decoded dropped."""

    eos_ids = ()
    words = ("x</", "sea", "rch> and", " >", "é>", ">")

    def __init__(self) -> None:
        self.decoded = 0

    def encode(self, text: str) -> list[int]:
        raise NotImplementedError

    def decode(self, token_ids: Sequence[int]) -> str:
        self.decoded += 1
        return "".join(self.words[i] for i in token_ids).lstrip()

    def chat(self, text: str) -> list[int] | None:
        return None


def test_text_is_decoded_only_when_a_token_may_complete_a_stop() -> None:
    tokenizer = Words()
    rule = StopRule(("</search>",), tokenizer)
    assert not rule.completed([0])
    assert not rule.completed([0, 1])
    assert rule.completed([0, 1, 2])
    assert tokenizer.decoded == 3 + 1  # each token once, and the whole once
    for _ in range(5):
        assert not rule.completed([2, 1])
    assert tokenizer.decoded == 4


@given(st.text("ab<>é\n ", max_size=12), st.lists(st.text("ab<>é\n ", min_size=1, max_size=3), max_size=3))
def test_the_first_prefix_whose_text_holds_a_stop(text: str, stops: list[str]) -> None:
    data = text.encode()
    ends = (end for end in range(len(data) + 1) if any(stop in BYTES.decode(list(data[:end])) for stop in stops))
    assert first_stop(data, stops) == next(ends, None)
