"""Native tool calls of chat models: the search engine is a function that the model was taught to call.

::

    (the chat template with the function ``search`` and the question)
    <tool_call>{"name": "search", "arguments": {"query": "Dune"}}</tool_call>      sampled
    (the template's tool response) Doc 1(Title: "Dune") ...                        inserted, never trained
    <answer> Frank Herbert </answer>                                               sampled, up to the end of the turn

The tokenizer knows how the parts are written: by a Hugging Face chat template that puts calls in ``<tool_call>``
(Qwen2.5, Qwen3, Hermes), or as messages for a chat server.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from searchr1.errors import UserError
from searchr1.ports import Tokenizer
from searchr1.protocols.passages import fit
from searchr1.protocols.wording import load_wording
from searchr1.types import Action, Answer, Invalid, Observation, Passage, Search

OPEN, CLOSE = "<tool_call>", "</tool_call>"
SEARCH_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Asks a search engine; returns the passages that fit the query best.",
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string", "description": "What to search for."}},
            "required": ["query"],
        },
    },
}
PROMPTS = {"standard": "tool-calls"}
"""Wordings by name, and their files."""
INVALID = "This is not a valid call. Call search with a query, or write <answer> answer </answer> to finish."
_CALL = re.compile(rf"{OPEN}(.*?){CLOSE}", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


@dataclass(frozen=True)
class ToolCalls:
    """The ``tool_calls`` protocol over a tokenizer that can offer tools; raises ``UserError`` for any other.

    A turn is a search if it calls one (of several calls the first counts), else its text is the answer: what stands in
    ``<answer>``, or all of it (without ``<think>``) where the model ended its turn. ``prompt_template`` is ``standard``
    or a text file as in `Tags`; ``chat`` may not be "never", since calls are part of the chat template.
    """

    tokenizer: Tokenizer
    prompt_template: str = "standard"
    chat: str = "auto"

    def __post_init__(self) -> None:
        if self.chat not in ("auto", "always"):
            raise UserError(f"protocol.chat: tool calls are made in a chat, expected 'auto', got {self.chat!r}")
        _ = self._templates, self._wrapper

    @property
    def stops(self) -> tuple[str, ...]:
        return (CLOSE,)

    @cached_property
    def _templates(self) -> tuple[str, str]:
        return load_wording(self.prompt_template, PROMPTS)

    @cached_property
    def _wrapper(self) -> tuple[list[int], list[int]]:
        wrapper = self.tokenizer.tool_result([SEARCH_TOOL])
        if wrapper is None:
            raise UserError(
                "protocol.name = 'tool_calls' needs a chat template that offers tools, and this tokenizer has none; "
                "use protocol.name=tags or react_text"
            )
        return wrapper

    @cached_property
    def _ends(self) -> tuple[str, ...]:
        """What the end of a turn looks like in decoded text."""
        return tuple(self.tokenizer.decode((token,)) for token in self.tokenizer.eos_ids)

    def prompt(
        self,
        question: str,
        *,
        search: bool = True,
        passages: Sequence[Passage] = (),
        budget: int = 0,
        instruction: str = "",
    ) -> list[int]:
        """Ids that open the dialogue, with the tool where ``search`` is True and the passages where there are any."""
        template = f"{instruction}\nQuestion: {{question}}\n" if instruction else self._templates[0 if search else 1]
        text = template.replace("{question}", question.strip())
        if passages:
            head, tail = self._wrapper
            shown = self.observe(passages, budget).token_ids
            text += self.tokenizer.decode(shown[len(head) : len(shown) - len(tail)])
        ids = self.tokenizer.chat(text, [SEARCH_TOOL] if search else ())
        assert ids is not None, "a tokenizer that offers tools has a chat template"
        return ids

    def parse(self, text: str) -> Action:
        """The first call, else the answer; invalid where the call is not one of ``search`` or the turn was cut."""
        if (call := _CALL.search(text)) is not None:
            return _read_call(call[1])
        said = text.rpartition("</think>")[2]
        if found := _ANSWER.findall(said):
            return Answer(found[-1].strip()) if found[-1].strip() else Invalid("empty <answer>")
        if OPEN in said:
            return Invalid(f"{OPEN} without {CLOSE}")
        ended = said
        for end in self._ends:
            ended = ended.removesuffix(end)
        if ended == said or "<think>" in said:
            return Invalid("neither a call nor an answer: the turn was cut before its end")
        return Answer(ended.strip()) if ended.strip() else Invalid("an empty turn")

    def write(self, action: Search | Answer) -> str:
        """The call as Qwen2.5 writes it, or the answer in its tags."""
        if isinstance(action, Answer):
            return f"<answer> {action.text} </answer>"
        called = {"name": SEARCH_TOOL["function"]["name"], "arguments": {"query": action.query}}
        return f"{OPEN}\n{json.dumps(called, ensure_ascii=False)}\n{CLOSE}"

    def observe(self, passages: Sequence[Passage], budget: int) -> Observation:
        """The passages as the tool's response, at most ``budget`` tokens. Raises ``ValueError`` as `fit` does."""
        return fit(self.tokenizer, passages, self._wrapper, budget)

    def invalid(self) -> Observation:
        head, tail = self._wrapper
        return Observation((*head, *self.tokenizer.encode(INVALID), *tail))


def _read_call(text: str) -> Action:
    """What the JSON of one call asks for.

    >>> _read_call('{"name": "search", "arguments": {"query": "Dune"}}')
    Search(query='Dune')
    >>> _read_call('{"name": "buy", "arguments": {}}')
    Invalid(reason="a call of an unknown tool 'buy'")
    """
    try:
        call = json.loads(text)
        arguments = call["arguments"]
        if isinstance(arguments, str):  # JSON in JSON, as in OpenAI's format
            arguments = json.loads(arguments)
        name, query = call["name"], arguments.get("query")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Invalid("a call that is not JSON with a name and arguments")
    if name != SEARCH_TOOL["function"]["name"]:
        return Invalid(f"a call of an unknown tool {name!r}")
    if not isinstance(query, str) or not query.strip():
        return Invalid("a call of search without a query")
    return Search(query.strip())
