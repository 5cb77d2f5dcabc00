"""The dialogue of Search-R1 (arXiv 2503.09516, table 1): ``<think>``, ``<search>``, ``<information>``, ``<answer>``.

::

    Question: Who wrote Dune?
    <think> one step</think><search> Dune</search>          sampled; the engine stops at the closing tag

    <information>Doc 1(Title: "Dune") ...</information>      inserted, never trained

    <think> found</think><answer> Frank Herbert</answer>    sampled
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path

from searchr1.errors import UserError, nearest
from searchr1.ports import Tokenizer
from searchr1.types import Action, Answer, Invalid, Observation, Passage, Search

OPEN, CLOSE = "\n\n<information>", "</information>\n\n"
INVALID = (
    "\nThis is not a valid action. Write <search> query </search> to search or <answer> answer </answer> to finish.\n"
)
PROMPTS = ("standard", "short")
_CLOSING = re.compile(r"</(search|answer)>")


@dataclass(frozen=True)
class Tags:
    """The ``tags`` protocol over one tokenizer.

    ``prompt_template`` is the name of a built-in wording (``standard``, ``short``) or a text file with the place
    holder ``{question}``; for questions asked without a search engine, ``NAME-no-search`` (the same file name with
    ``-no-search`` before the suffix) is used where it exists. With ``chat`` "auto", the prompt is a user message
    in the tokenizer's chat template if there is one; "never" writes plain text (base models), "always" insists.
    """

    tokenizer: Tokenizer
    prompt_template: str = "standard"
    chat: str = "auto"

    def __post_init__(self) -> None:
        if self.chat not in ("auto", "always", "never"):
            raise UserError(f"protocol.chat must be 'auto', 'always' or 'never', got {self.chat!r}")
        _ = self._templates

    @property
    def stops(self) -> tuple[str, ...]:
        return ("</search>", "</answer>")

    @cached_property
    def _templates(self) -> tuple[str, str]:
        """The wording with and without a search engine."""
        if self.prompt_template in PROMPTS:
            folder = files("searchr1.protocols") / "prompts"
            with_search = (folder / f"{self.prompt_template}.txt").read_text(encoding="utf-8")
            return with_search, (folder / f"{self.prompt_template}-no-search.txt").read_text(encoding="utf-8")
        path = Path(self.prompt_template)
        other = path.with_name(f"{path.stem}-no-search{path.suffix}") if path.name else path
        with_search = _read_template(path)
        return with_search, _read_template(other) if os.path.isfile(other) else with_search

    def prompt(
        self, question: str, *, search: bool = True, passages: Sequence[Passage] = (), budget: int = 0
    ) -> list[int]:
        """Ids that open the dialogue, chat template applied where it is wanted.

        ``passages`` (at most ``budget`` tokens of them) are shown at the end of the prompt: one-shot RAG. Raises
        ``UserError`` where ``chat`` is "always" and the tokenizer has no chat template.

        >>> from searchr1.tokenization import ByteTokenizer
        >>> bytes(Tags(ByteTokenizer(), "short").prompt("Who wrote Dune?"))
        b'Question: Who wrote Dune?\\n'
        """
        text = self._templates[0 if search else 1].replace("{question}", question.strip())
        shown = list(self.observe(passages, budget).token_ids) if passages else []
        if self.chat != "never":
            ids = self.tokenizer.chat(text + self.tokenizer.decode(shown))
            if ids is not None:
                return ids
            if self.chat == "always":
                raise UserError(
                    "protocol.chat is 'always' but this tokenizer has no chat template; use 'auto' or 'never'"
                )
        return self.tokenizer.encode(text) + shown

    def parse(self, text: str) -> Action:
        """The action that the first closing tag completes, from the last opening tag before it.

        >>> from searchr1.tokenization import ByteTokenizer
        >>> Tags(ByteTokenizer()).parse("<think> hm </think><search> Dune author </search> <answer> me </answer>")
        Search(query='Dune author')
        """
        close = _CLOSING.search(text)
        if close is None:
            return Invalid("no closing tag")
        opening = f"<{close[1]}>"
        start = text.rfind(opening, 0, close.start())
        if start < 0:
            return Invalid(f"{close[0]} without {opening}")
        content = text[start + len(opening) : close.start()].strip()
        if not content:
            return Invalid(f"empty {opening}")
        return Search(content) if close[1] == "search" else Answer(content)

    def write(self, action: Search | Answer) -> str:
        """The action in its tags, as the prompt's example has it.

        >>> from searchr1.tokenization import ByteTokenizer
        >>> Tags(ByteTokenizer()).write(Answer("Beijing"))
        '<answer> Beijing </answer>'
        """
        if isinstance(action, Search):
            return f"<search> {action.query} </search>"
        return f"<answer> {action.text} </answer>"

    def observe(self, passages: Sequence[Passage], budget: int) -> Observation:
        """The passages as ``Doc i(Title: "...") text``, in the wrapper, at most ``budget`` tokens.

        When they do not fit, the longest passages are cut, at token boundaries and each to the same length; the
        wrapper is always whole. Raises ``ValueError`` when the budget cannot hold even the empty wrapper.

        >>> from searchr1.tokenization import ByteTokenizer
        >>> passages = [Passage("1", "A", "long"), Passage("2", "B", "b")]
        >>> bytes(Tags(ByteTokenizer()).observe(passages, 71).token_ids)
        b'\\n\\n<information>Doc 1(Title: "A") lo\\nDoc 2(Title: "B") b</information>\\n\\n'
        """
        head, tail = self._wrapper
        room = budget - len(head) - len(tail)
        if room < 0:
            raise ValueError(f"an observation needs at least {budget - room} tokens for its wrapper, got {budget}")
        docs = [f'Doc {i}(Title: "{p.title}") {p.text}' for i, p in enumerate(passages, 1)]
        ids = self.tokenizer.encode(OPEN + "\n".join(docs) + CLOSE)
        if len(ids) <= budget:
            return Observation(tuple(ids))
        pieces = [self.tokenizer.encode("\n" * (i > 0) + doc) for i, doc in enumerate(docs)]
        limit = _share([len(piece) for piece in pieces], room)
        body = [token for piece in pieces for token in piece[:limit]]
        return Observation((*head, *body, *tail), truncated=any(len(piece) > limit for piece in pieces))

    @cached_property
    def _wrapper(self) -> tuple[list[int], list[int]]:
        return self.tokenizer.encode(OPEN), self.tokenizer.encode(CLOSE)

    def invalid(self) -> Observation:
        return Observation(tuple(self.tokenizer.encode(INVALID)))


def _read_template(path: Path) -> str:
    if not os.path.isfile(path):  # unlike Path.is_file, False for a name that no file can have
        raise UserError(
            f"protocol.prompt_template: expected a text file or one of {', '.join(PROMPTS)}, got "
            f"{str(path)!r}{nearest(str(path), PROMPTS)}"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected a prompt as UTF-8 text: {error}") from error
    if "{question}" not in text:
        raise UserError(f"{path}: a prompt needs the place holder {{question}}; add it where the question goes")
    return text


def _share(lengths: Sequence[int], room: int) -> int:
    """The largest common limit under which pieces of these lengths fit into ``room``; the longest where all fit.

    >>> _share([10, 2, 10], 12)
    5
    """
    for served, length in enumerate(sorted(lengths)):
        share = room // (len(lengths) - served)
        if length > share:
            return share
        room -= length
    return max(lengths, default=0)
