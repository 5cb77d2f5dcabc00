"""Tokenizers behind the one port that the rest of the package sees (``ports.Tokenizer``).

``ByteTokenizer`` needs no file and makes exact tests easy; ``HFTokenizer`` wraps whatever a model folder or the
Hugging Face hub holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from searchr1.errors import UserError


class ByteTokenizer:
    """UTF-8 bytes as ids 0 to 255, and 256 for the end of a sequence.

    >>> tokenizer = ByteTokenizer()
    >>> tokenizer.encode("hé")
    [104, 195, 169]
    >>> tokenizer.decode([104, 195, 169, 256])
    'hé<eos>'
    """

    eos_ids: tuple[int, ...] = (256,)
    vocabulary_size = 257

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8"))

    def decode(self, token_ids: Sequence[int]) -> str:
        """Bytes that are not UTF-8, and ids above 256, become U+FFFD."""
        data = b"".join(bytes((i,)) if i < 256 else b"<eos>" if i == 256 else b"\xff" for i in token_ids)
        return data.decode("utf-8", errors="replace")

    def chat(self, text: str, tools: Sequence[Mapping[str, Any]] = ()) -> list[int] | None:
        return None

    def tool_result(self, tools: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[int]] | None:
        return None


class HFTokenizer:
    """A Hugging Face tokenizer: a model folder, a name on the hub, or a tokenizer that is already loaded.

    ``encode`` makes no special tokens, neither around the text nor of it: a document that spells ``<|im_end|>`` stays
    text. ``decode`` hides none and tidies nothing, so that what the policy sampled reads as it is. ``eos_ids`` joins
    the tokenizer's own end-of-sequence token with those of ``generation_config.json`` (Qwen and Llama 3 chat models
    list two). Raises ``UserError`` where no tokenizer is found.
    """

    def __init__(self, source: Any) -> None:
        is_name = isinstance(source, (str, Path))
        self.backend: Any = _load(str(source)) if is_name else source
        if not self.encode("Who?"):  # transformers may load another class than the one that wrote the files
            raise UserError(
                f"the tokenizer of {source} turns text into no tokens at all: {type(self.backend).__name__} cannot "
                "read its files; save it with the class that its model type implies"
            )
        folder = Path(source if is_name else str(getattr(source, "name_or_path", "")))
        eos = [] if self.backend.eos_token_id is None else [int(self.backend.eos_token_id)]
        self.eos_ids: tuple[int, ...] = tuple(dict.fromkeys(eos + _generation_eos(folder)))

    def encode(self, text: str) -> list[int]:
        ids = self.backend.encode(text, add_special_tokens=False, split_special_tokens=True)
        return [int(i) for i in ids]

    def decode(self, token_ids: Sequence[int]) -> str:
        ids = list(token_ids)
        return str(self.backend.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def chat(self, text: str, tools: Sequence[Mapping[str, Any]] = ()) -> list[int] | None:
        if not self.backend.chat_template:
            return None
        if any(special in text for special in self._specials):
            return self._chat_around(text, tools)
        ids = self.backend.apply_chat_template(
            [{"role": "user", "content": text}],
            tools=list(tools) or None,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
        )
        return [int(i) for i in ids]

    @cached_property
    def _specials(self) -> frozenset[str]:
        """The spellings of all special tokens; Llama 3 names few of its own as such."""
        added = (str(token) for token in self.backend.added_tokens_decoder.values() if token.special)
        return frozenset((*added, *self.backend.all_special_tokens))

    def _chat_around(self, text: str, tools: Sequence[Mapping[str, Any]]) -> list[int]:
        """`chat` for text that spells special tokens: those of the template are meant, those of the text are not."""
        rendered = self.backend.apply_chat_template(
            [{"role": "user", "content": _TEXT}],
            tools=list(tools) or None,
            add_generation_prompt=True,
            tokenize=False,
        )
        parts = [self.backend.encode(part, add_special_tokens=False) for part in str(rendered).split(_TEXT)]
        ids = [int(i) for i in parts[0]]
        for part in parts[1:]:
            ids += [*self.encode(text), *(int(i) for i in part)]
        return ids

    def tool_result(self, tools: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[int]] | None:
        """None where the chat template knows no tools; ``UserError`` where it writes their calls in another way."""
        frame = _tool_frame(self.backend, tools) if self.backend.chat_template else None
        if frame is None:
            return None
        # unlike in `encode`, the template's special tokens are meant
        head, tail = (self.backend.encode(text, add_special_tokens=False) for text in frame)
        return [int(i) for i in head], [int(i) for i in tail]


_ARGUMENT, _RESULT, _TEXT = "argument-of-a-call", "result-of-a-call", "text-of-the-user"


def _tool_frame(backend: Any, tools: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    """What a chat template writes between a call and its result, and after it: found by rendering an example."""
    from jinja2 import TemplateError

    function = tools[0]["function"]
    called = {"name": function["name"], "arguments": {function["parameters"]["required"][0]: _ARGUMENT}}
    asked = [{"role": "user", "content": "?"}]
    answered = [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "call00000", "type": "function", "function": called}],
        },
        {"role": "tool", "content": _RESULT, "tool_call_id": "call00000", "name": function["name"]},
    ]

    def render(messages: list[dict[str, Any]], offered: list[Any] | None) -> str:
        return str(backend.apply_chat_template(messages, tools=offered, add_generation_prompt=True, tokenize=False))

    try:
        if render(asked, list(tools)) == render(asked, None):
            return None
        text = render(asked + answered, list(tools))
        before, argument, after = text.partition(_ARGUMENT)
        opened, (closed, _, reply) = before.rpartition("<tool_call>")[2], after.partition("</tool_call>")
        head, result, tail = reply.partition(_RESULT)
        if result and json.loads(opened + argument + closed) == called:
            return head, tail
    except (TemplateError, TypeError, ValueError):
        pass  # it does not render such messages, or not as JSON: said below
    raise UserError(
        f"the chat template of {backend.name_or_path or 'this tokenizer'} does not write tool calls as <tool_call>"
        '{"name": ..., "arguments": {...}}</tool_call> (Qwen2.5, Qwen3 and Hermes do); use protocol.name=react_text or '
        "tags, or a chat server (engine.name=openai), which reads the calls itself"
    )


def _load(source: str) -> Any:
    from transformers import AutoTokenizer

    if Path(source).is_dir() and not any((Path(source) / name).exists() for name in _TOKENIZER_FILES):
        raise UserError(
            f"{source} has no tokenizer (looked for {', '.join(_TOKENIZER_FILES)}); save one there with "
            "tokenizer.save_pretrained, or name another model"
        )
    try:
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"no tokenizer could be loaded from {source!r}: expected a model folder or name; {reason}"
        ) from error


_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")


def _generation_eos(folder: Path) -> list[int]:
    path = folder / "generation_config.json"
    if not path.is_file():
        return []
    value = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    return [] if value is None else [int(i) for i in (value if isinstance(value, list) else [value])]


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars that transformers shows for every file it reads or writes."""
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
