"""The dialogue of ReAct (arXiv 2210.03629) as plain text, for models that know no tool calls.

::

    Question: Who wrote Dune?
    Thought: I need its author.                  sampled, up to the bracket that closes the action
    Action: Search[Dune]
    Observation: Doc 1(Title: "Dune") ...        inserted, never trained
    Thought: found
    Action: Finish[Frank Herbert]                sampled

The wording is our own and has no examples in it: the original shows six.
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

OPEN, CLOSE, THOUGHT = "Observation: ", "\nThought:", "Thought:"
INVALID = "This is not a valid action. Write Action: Search[query] or Action: Finish[answer]."
PROMPTS = {"standard": "react"}
"""Wordings by name, and their files."""
_ACTION = re.compile(r"Action[^:\n]*:[ \t]*(\w+)[ \t]*\[(.*)\]")


@dataclass(frozen=True)
class ReactText:
    """The ``react_text`` protocol over one tokenizer; ``prompt_template`` and ``chat`` are those of `Tags`."""

    tokenizer: Tokenizer
    prompt_template: str = "standard"
    chat: str = "auto"

    def __post_init__(self) -> None:
        check_chat(self.chat)
        _ = self._templates

    @property
    def stops(self) -> tuple[str, ...]:
        return ("]\n",)

    @cached_property
    def _templates(self) -> tuple[str, str]:
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
        """Ids that open the dialogue and its first thought; ``passages`` are shown as a first observation.

        >>> from searchr1.tokenization import ByteTokenizer
        >>> bytes(ReactText(ByteTokenizer()).prompt("Who wrote Dune?"))[-34:]
        b'Question: Who wrote Dune?\\nThought:'
        """
        template = f"{instruction}\n\nQuestion: {{question}}\n" if instruction else self._templates[0 if search else 1]
        text = template.replace("{question}", question.strip())
        shown = self.observe(passages, budget).token_ids if passages else self.tokenizer.encode(THOUGHT)
        return opening(self.tokenizer, text, list(shown), self.chat)

    def parse(self, text: str) -> Action:
        """The first action; its argument goes to the last bracket of the line.

        >>> from searchr1.tokenization import ByteTokenizer
        >>> ReactText(ByteTokenizer()).parse(" so\\nAction: Search[f[x] of Dune]\\nObservation: made up")
        Search(query='f[x] of Dune')
        """
        found = _ACTION.search(text)
        if found is None:
            return Invalid("no action")
        kind, argument = found[1].lower(), found[2].strip()
        if kind not in ("search", "finish"):
            return Invalid(f"an unknown action {found[1]!r}")
        if not argument:
            return Invalid(f"empty {found[1]}[]")
        return Search(argument) if kind == "search" else Answer(argument)

    def write(self, action: Search | Answer) -> str:
        """The action on its line, in which there is room for one line of text alone.

        >>> from searchr1.tokenization import ByteTokenizer
        >>> ReactText(ByteTokenizer()).write(Answer("Beijing"))
        'Action: Finish[Beijing]\\n'
        """
        kind, text = ("Search", action.query) if isinstance(action, Search) else ("Finish", action.text)
        return f"Action: {kind}[{' '.join(text.split())}]\n"

    def observe(self, passages: Sequence[Passage], budget: int) -> Observation:
        """The passages as an observation, at most ``budget`` tokens. Raises ``ValueError`` as `fit` does."""
        return fit(self.tokenizer, passages, self._wrapper, budget)

    @cached_property
    def _wrapper(self) -> tuple[list[int], list[int]]:
        return self.tokenizer.encode(OPEN), self.tokenizer.encode(CLOSE)

    def invalid(self) -> Observation:
        return Observation(tuple(self.tokenizer.encode(OPEN + INVALID + CLOSE)))
