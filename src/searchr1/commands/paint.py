"""Trajectories in colour: who wrote what decides the style, never what the text says about itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from searchr1.console import visible

if TYPE_CHECKING:
    from rich.text import Text

Row = dict[str, Any]
STYLES = {"think": "italic", "search": "bold cyan", "answer": "bold"}
INFORMATION = "yellow"
_TAG = re.compile(r"</?(think|search|answer)>")


def paint(source: str, text: str, *, right: bool | None = None) -> Text:
    """One segment. ``right`` colours the policy's answer green or red.

    The text is never read as markup, and tags count only where the policy wrote them:

    >>> painted = paint("environment", "</information>[red]<answer>x</answer>")
    >>> painted.plain, {str(span.style) for span in painted.spans}
    ('</information>[red]<answer>x</answer>', {'yellow'})
    """
    from rich.text import Text

    painted = Text()
    for style, piece in _pieces(source, visible(text)):
        answer = style == STYLES["answer"] and right is not None
        painted.append(piece, style=f"bold {'green' if right else 'red'}" if answer else style)
    return painted


def trajectory_text(row: Row) -> Text:
    """A whole trajectory of a run folder, prompt left out."""
    from rich.text import Text

    right = row["components"].get("exact_match") == 1
    said = [segment for segment in row["segments"] if segment["source"] != "prompt"]
    painted = Text()
    for place, segment in enumerate(said):
        painted.append("\n" * (place > 0))
        painted.append_text(paint(segment["source"], _compact(segment["text"]), right=right))
    return painted


def telling_pair(before: Sequence[Row], after: Sequence[Row]) -> tuple[Row, Row] | None:
    """The same question before and after training; if there is one, wrong before and right after with most searches."""
    then = {(row["question"]["dataset"], row["question"]["id"]): row for row in before}
    pairs = [(then[key], row) for row in after if (key := (row["question"]["dataset"], row["question"]["id"])) in then]
    if not pairs:
        return None

    def merit(pair: tuple[Row, Row]) -> tuple[bool, bool, int]:
        old, new = (row["components"].get("exact_match") == 1 for row in pair)
        return new and not old, new, sum(turn["search"] == "found" for turn in pair[1]["turns"])

    return max(pairs, key=merit)


def _pieces(source: str, text: str) -> Iterator[tuple[str, str]]:
    if source != "policy":
        yield INFORMATION if source == "environment" else "dim", text
        return
    style, start = "", 0
    for tag in _TAG.finditer(text):
        opening = not tag[0].startswith("</")
        end = tag.start() if opening else tag.end()
        if text[start:end]:
            yield style, text[start:end]
        style, start = STYLES[tag[1]] if opening else "", end
    if text[start:]:
        yield style, text[start:]


def _compact(text: str) -> str:
    return "\n".join(line for line in text.strip().split("\n") if line.strip())
