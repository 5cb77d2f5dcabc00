"""The wording of prompts: built-in ones and those of the user's text files, shared by the dialogue formats."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from searchr1.errors import UserError, nearest
from searchr1.ports import Tokenizer


def load_wording(template: str, built_in: Mapping[str, str]) -> tuple[str, str]:
    """The text with the place holder ``{question}``, for dialogues with and without a search engine.

    ``template`` is a key of ``built_in`` (whose values are names of files in ``prompts/``) or a text file; the wording
    without a search engine is the file with ``-no-search`` before its suffix, where there is one. Raises ``UserError``.
    """
    if template in built_in:
        folder = files("searchr1.protocols") / "prompts"
        with_search = (folder / f"{built_in[template]}.txt").read_text(encoding="utf-8")
        return with_search, (folder / f"{built_in[template]}-no-search.txt").read_text(encoding="utf-8")
    path = Path(template)
    other = path.with_name(f"{path.stem}-no-search{path.suffix}") if path.name else path
    with_search = _read(path, built_in)
    return with_search, _read(other, built_in) if os.path.isfile(other) else with_search


def _read(path: Path, built_in: Mapping[str, str]) -> str:
    if not os.path.isfile(path):  # unlike Path.is_file, False for a name that no file can have
        raise UserError(
            f"protocol.prompt_template: expected a text file or one of {', '.join(built_in)}, got "
            f"{str(path)!r}{nearest(str(path), built_in)}"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected a prompt as UTF-8 text: {error}") from error
    if "{question}" not in text:
        raise UserError(f"{path}: a prompt needs the place holder {{question}}; add it where the question goes")
    return text


def check_chat(chat: str) -> None:
    """Raises ``UserError`` for what `opening` does not know."""
    if chat not in ("auto", "always", "never"):
        raise UserError(f"protocol.chat must be 'auto', 'always' or 'never', got {chat!r}")


def opening(tokenizer: Tokenizer, text: str, shown: list[int], chat: str) -> list[int]:
    """Ids of a prompt that ends with the tokens ``shown``: in the chat template, or as plain text.

    ``chat`` "auto" takes the template where there is one, "never" plain text; "always" insists, with ``UserError``.
    """
    if chat != "never":
        ids = tokenizer.chat(text + tokenizer.decode(shown))
        if ids is not None:
            return ids
        if chat == "always":
            raise UserError("protocol.chat is 'always' but this tokenizer has no chat template; use 'auto' or 'never'")
    return tokenizer.encode(text) + shown
