"""The engine that asks an OpenAI-compatible server: text in, text out.

Nothing can be trained on what it samples: the ids are those of the tokenizer here, not the server's, and there are no
log-probabilities (all are 0.0). Seeds go to the server, which need not heed them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from searchr1.engines.chat_http import ChatServer
from searchr1.engines.chat_messages import read_conversation, write_call
from searchr1.engines.chat_reply import Reply
from searchr1.engines.text_tokens import Mark, TextTokenizer
from searchr1.errors import EngineError, UserError
from searchr1.ports import Session, Tokenizer
from searchr1.protocols.tool_calls import CLOSE
from searchr1.types import Completion, FinishReason, Sampling

if TYPE_CHECKING:
    import torch

MOST_STOPS = 4
"""Stop strings that OpenAI takes in a request; further ones are looked for here, in what comes back."""
SEEDS = 2**31
"""Servers take seeds below this; larger ones are reduced."""
FIELDS = ("temperature", "top_p", "seed", "stop")
"""What may be left out of requests, for servers or models that refuse it."""


@dataclass(eq=False, slots=True)
class _Session:
    """What was said in it: each context with its completion, and where the completion begins."""

    said: list[tuple[tuple[int, ...], int]] = field(default_factory=list)
    open: bool = True

    def own(self, token_ids: tuple[int, ...]) -> list[tuple[int, int]]:
        """(start, end) of the completions of this session that a context continues."""
        return [(start, len(whole)) for whole, start in self.said if token_ids[: len(whole)] == whole]


class OpenAIEngine:
    """Samples from a model of ``server``.

    ``api`` is "chat" (``/chat/completions``; needs a `TextTokenizer`, whose marks say who speaks) or "completions"
    (``/completions``: the whole context as one prompt, as text with a `TextTokenizer`, else as the ids of the model's
    own tokenizer). ``max_tokens_field`` names the request's limit of tokens, which are the server's: a completion may
    come out somewhat longer in the tokens of ``tokenizer``. ``omit`` names `FIELDS` that are not sent.
    """

    def __init__(
        self,
        server: ChatServer,
        tokenizer: Tokenizer,
        *,
        api: str = "chat",
        max_tokens_field: str = "max_tokens",
        omit: Sequence[str] = (),
    ) -> None:
        if api == "chat" and not isinstance(tokenizer, TextTokenizer):
            raise UserError("engine.api = 'chat' sends messages, not tokens; expected no engine.tokenizer")
        if unknown := set(omit) - set(FIELDS):
            raise UserError(f"engine.omit: expected some of {', '.join(FIELDS)}, got {', '.join(sorted(unknown))}")
        self.server = server
        self._tokenizer = tokenizer
        self._api = api
        self._max_tokens_field = max_tokens_field
        self._omit = frozenset(omit)

    @contextmanager
    def session(self) -> Iterator[Session]:
        session = _Session()
        try:
            yield session
        finally:
            session.open = False

    async def generate(self, token_ids: Sequence[int], sampling: Sampling, *, session: Session) -> Completion:
        """Raises ``EngineError`` as `ChatServer` does, and for a completion that the server withheld."""
        if not isinstance(session, _Session) or not session.open:
            raise EngineError("generate needs an open session of this engine; call it inside `with engine.session()`")
        if not token_ids:
            raise EngineError("the context is empty: give at least one token")
        context = tuple(token_ids)
        reply = await self._ask(context, sampling, session)
        completion = self._completion(reply, sampling.stop)
        session.said.append(((*context, *completion.token_ids), len(context)))
        return completion

    async def load(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        raise EngineError("a server's weights cannot be changed from here; training needs the engine 'local'")

    async def check(self) -> int | None:
        """Make sure that the server serves the model; its context in tokens where it says. Raises ``UserError``."""
        return (await self.server.check()).context_tokens

    def counts(self) -> dict[str, float]:
        """Those of `ChatServer`."""
        return self.server.counts()

    async def _ask(self, context: tuple[int, ...], sampling: Sampling, session: _Session) -> Reply:
        tokenizer = self._tokenizer
        if self._api == "chat":
            assert isinstance(tokenizer, TextTokenizer), "checked when it was made"
            talk = read_conversation(context, session.own(context), tokenizer)
            if not talk.tools:
                return await self.server.chat(talk.messages, **self._fields(sampling, sampling.stop))
            stops = tuple(stop for stop in sampling.stop if stop != CLOSE)  # the server finds calls itself
            return await self.server.chat(talk.messages, tools=talk.tools, **self._fields(sampling, stops))
        prompt: str | list[int] = list(context)
        if isinstance(tokenizer, TextTokenizer):
            prompt = tokenizer.decode([token for token in context if token != Mark.END])
        return await self.server.complete(prompt, **self._fields(sampling, sampling.stop))

    def _fields(self, sampling: Sampling, stops: Sequence[str]) -> dict[str, Any]:
        """The request's fields about sampling; all of them, as servers' defaults may be those of the model's files."""
        fields: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p}
        fields["seed"] = sampling.seed % SEEDS
        if stops:
            fields["stop"] = list(stops[:MOST_STOPS])
        kept = {name: value for name, value in fields.items() if name not in self._omit}
        return {self._max_tokens_field: sampling.max_tokens, **kept}

    def _completion(self, reply: Reply, stops: Sequence[str]) -> Completion:
        text, reason = finish(reply, stops)
        ids = self._tokenizer.encode(text)
        ends = self._tokenizer.eos_ids
        if reason is FinishReason.EOS and ends:
            ids.append(reply.stopped_by if isinstance(reply.stopped_by, int) and reply.stopped_by in ends else ends[0])
        return Completion(tuple(ids), (0.0,) * len(ids), reason, 0)


def finish(reply: Reply, stops: Sequence[str]) -> tuple[str, FinishReason]:
    """The text of a reply up to and with the first of ``stops``, which servers cut off, and why it ended.

    A native tool call becomes text; of several the first counts. Where the server does not say which stop string ended
    it, see `missing_stop`. Raises ``EngineError`` for an end that is none of stop, length and tool calls.
    """
    if reply.finish_reason not in _ENDS:
        raise EngineError(f"the server withheld a completion: it ended for {reply.finish_reason!r}")
    cut = reply.finish_reason == "length"
    text = reply.text
    if reply.calls:
        text = "\n".join(part for part in (text.strip(), write_call(reply.calls[0], whole=not cut)) if part)
    first = min((text.find(stop) + len(stop) for stop in stops if stop and stop in text), default=None)
    if first is not None:
        return text[:first], FinishReason.STOP
    if cut:
        return text, FinishReason.LENGTH
    if reply.calls:
        return text, FinishReason.STOP
    missing = reply.stopped_by if reply.names_stops else missing_stop(text, stops)
    if isinstance(missing, str) and missing in stops:
        return text + missing, FinishReason.STOP
    return text, FinishReason.EOS


_ENDS = ("stop", "length", "tool_calls", "function_call", "eos", "eos_token")
_TAG = re.compile(r"</(\w+)>")


def missing_stop(text: str, stops: Sequence[str]) -> str | None:
    """The stop string that a server cut off, for servers that do not say: the one that closes what is still open.

    ``</search>`` closes ``<search>``, and a stop string that begins with ``]`` closes ``[``; of several, the one that
    was opened last. With nothing open the model ended by itself: None. A model that ends by itself while something is
    open cannot be told apart, and is taken to have closed it.

    >>> missing_stop("<think> so </think><search> Dune ", ["</search>", "</answer>"])
    '</search>'
    >>> missing_stop("Dune", ["</search>"]) is None
    True
    """
    opened = {}
    for stop in stops:
        tag = _TAG.match(stop)
        opening, closing = (f"<{tag[1]}>", tag[0]) if tag else ("[", "]") if stop.startswith("]") else ("", "")
        if opening and text.rfind(opening) > text.rfind(closing):
            opened[text.rfind(opening)] = stop
    return opened[max(opened)] if opened else None
