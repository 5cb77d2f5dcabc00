"""The dialogue of Search-R1 (arXiv 2503.09516, table 1): ``<think>``, ``<search>``, ``<information>``, ``<answer>``.

::

    Question: Who wrote Dune?
    <think> one step</think><search> Dune</search>          sampled; the engine stops at the closing tag

    <information>Doc 1(Title: "Dune") ...</information>      inserted, never trained

    <think> found</think><answer> Frank Herbert</answer>    sampled
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from searchr1.ports import Tokenizer
from searchr1.protocols.passages import fit
from searchr1.protocols.wording import check_chat, load_wording, opening
from searchr1.types import Action, Answer, Invalid, Observation, Passage, Search

OPEN, CLOSE = "\n\n<information>", "</information>\n\n"
INVALID = (
    "\nThis is not a valid action. Write <search> query </search> to search or <answer> answer </answer> to finish.\n"
)
PROMPTS = {"standard": "standard", "short": "short"}
"""Wordings by name, and their files."""
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
        check_chat(self.chat)
        _ = self._templates

    @property
    def stops(self) -> tuple[str, ...]:
        return ("</search>", "</answer>")

    @cached_property
    def _templates(self) -> tuple[str, str]:
        """The wording with and without a search engine."""
        return load_wording(self.prompt_template, PROMPTS)

    def prompt(
        self,
        question: str,
        *,
        search: bool = True,
        passages: Sequence[Passage] = (),
        budget: int = 0,
        instruction: str = "",
    ) -> list[int]:
        """Ids that open the dialogue, chat template applied where it is wanted.

        ``passages`` (at most ``budget`` tokens of them) are shown at the end of the prompt: one-shot RAG. An
        ``instruction`` replaces that of the template; ``short`` has none, so it stays as it is: its policies were made
        to read these words alone. Raises ``UserError`` where ``chat`` is "always" and the tokenizer has no chat
        template.

        >>> from searchr1.tokenization import ByteTokenizer
        >>> bytes(Tags(ByteTokenizer(), "short").prompt("Who wrote Dune?"))
        b'Question: Who wrote Dune?\\n'
        """
        template = self._templates[0 if search else 1]
        if instruction and self.prompt_template != "short":
            template = f"{instruction}\nQuestion: {{question}}\n"
        text = template.replace("{question}", question.strip())
        shown = list(self.observe(passages, budget).token_ids) if passages else []
        return opening(self.tokenizer, text, shown, self.chat)

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
        encode = self.tokenizer.encode
        return fit(self.tokenizer, passages, self._wrapper, budget, whole=lambda text: encode(OPEN + text + CLOSE))

    @cached_property
    def _wrapper(self) -> tuple[list[int], list[int]]:
        return self.tokenizer.encode(OPEN), self.tokenizer.encode(CLOSE)

    def invalid(self) -> Observation:
        return Observation(tuple(self.tokenizer.encode(INVALID)))
