"""The engine that says what it is told: the shipped fake behind every test that needs no model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from searchr1.engines.stops import StopRule
from searchr1.errors import EngineError, UserError
from searchr1.ports import Session, Tokenizer
from searchr1.types import Completion, FinishReason, Sampling

if TYPE_CHECKING:
    import torch

Script = Sequence[str] | Mapping[str, str | Sequence[str]] | Callable[[str, int], str]
"""Turn texts in order; or such texts by a substring of the context (the first key found in it wins, and a lone string
is said at every turn); or a function of the context's text and the turn's index."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call of ``generate``: ``session`` counts sessions and ``turn`` the calls within one, from 0."""

    session: int
    turn: int
    token_ids: tuple[int, ...]
    sampling: Sampling


@dataclass(eq=False, slots=True)
class _Session:
    index: int
    turns: int = 0
    open: bool = True


class ScriptedEngine:
    """Says the script's texts, stops at stop strings and at ``max_tokens``, and ends with EOS where a text ends.

    Every token gets the log-probability ``logprob``; every call is kept in ``requests``.

    >>> import asyncio
    >>> from searchr1.tokenization import ByteTokenizer
    >>> engine = ScriptedEngine(["<search>x</search> and more"], ByteTokenizer())
    >>> with engine.session() as session:
    ...     done = asyncio.run(engine.generate([1], Sampling(99, stop=("</search>",)), session=session))
    >>> ByteTokenizer().decode(done.token_ids), str(done.finish_reason)
    ('<search>x</search>', 'stop')
    """

    def __init__(self, script: Script, tokenizer: Tokenizer, *, logprob: float = -0.5) -> None:
        if isinstance(script, str):
            raise UserError(f"a script is a list of turn texts, a mapping or a function, got the string {script!r}")
        self.requests: list[Request] = []
        self.version = 0
        self._script = script
        self._tokenizer = tokenizer
        self._logprob = logprob
        self._sessions = 0

    @contextmanager
    def session(self) -> Iterator[Session]:
        session = _Session(self._sessions)
        self._sessions += 1
        try:
            yield session
        finally:
            session.open = False

    async def generate(self, token_ids: Sequence[int], sampling: Sampling, *, session: Session) -> Completion:
        if not isinstance(session, _Session) or not session.open:
            raise EngineError("generate needs an open session of this engine; call it inside `with engine.session()`")
        turn, session.turns = session.turns, session.turns + 1
        self.requests.append(Request(session.index, turn, tuple(token_ids), sampling))
        text = self._text(self._tokenizer.decode(token_ids), turn)
        ids, reason = self._cut(self._tokenizer.encode(text), sampling)
        return Completion(tuple(ids), (self._logprob,) * len(ids), reason, self.version)

    async def load(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Only the version changes: a script has no weights."""
        self.version = version

    def _text(self, context: str, turn: int) -> str:
        script = self._script
        if callable(script):
            return script(context, turn)
        if isinstance(script, Mapping):
            key = next((key for key in script if key in context), None)
            if key is None:
                raise EngineError(f"no key of the script occurs in the context that ends {context[-60:]!r}")
            if isinstance(said := script[key], str):
                return said
            script = said
        if turn >= len(script):
            raise EngineError(f"the script has {len(script)} turns and turn {turn + 1} was asked for; add a text")
        return script[turn]

    def _cut(self, ids: list[int], sampling: Sampling) -> tuple[list[int], FinishReason]:
        ids = ids + list(self._tokenizer.eos_ids[:1])
        rule = StopRule(sampling.stop, self._tokenizer)
        for end in range(1, min(len(ids), sampling.max_tokens) + 1):
            if ids[end - 1] in self._tokenizer.eos_ids:
                return ids[:end], FinishReason.EOS
            if rule.completed(ids[:end]):
                return ids[:end], FinishReason.STOP
        return ids[: sampling.max_tokens], FinishReason.LENGTH


def read_script(path: str | Path) -> Script:
    """A script from a JSON file: a list of turn texts, or a mapping of substrings to texts or lists of them."""
    try:
        script = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected a JSON file with a list of turn texts or a mapping; {error}") from error
    if not isinstance(script, (list, dict)):
        raise UserError(f"{path}: expected a JSON list of turn texts or a mapping, got {type(script).__name__}")
    return script
