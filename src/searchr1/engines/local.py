"""The engine that needs nothing but torch: continuous batching over any Hugging Face causal language model.

Every session has a slot that keeps its keys and values from turn to turn, so a turn prefills only what is new (the
observation, and the last token sampled before it) and nothing is computed twice. Requests join and leave the batch as
they come and go.

In deterministic mode (the default) the composition of every batch depends on what the sessions asked for, never on
when: new requests join only when at most ``refill`` of those who joined together are still sampling, and only once
every open session is either sampling or waiting to. So a slow search holds back the others at such a point; that is the
price of the same run bit for bit. Open the sessions of a batch together, and take ``deterministic=False`` for a server.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from searchr1.engines.batch import Batch, Stats
from searchr1.engines.models import align
from searchr1.engines.passes import check_model, check_window, copy_weights
from searchr1.engines.sampling import check, uniforms
from searchr1.engines.sessions import LocalSession, Request
from searchr1.engines.stops import StopRule
from searchr1.errors import EngineError, UserError
from searchr1.ports import Session, Tokenizer
from searchr1.types import Completion, Sampling

log = logging.getLogger(__name__)

PATIENCE = 60.0
"""Seconds of waiting for absent sessions after which the log says so."""
SETTLE = 3
"""Turns of the event loop after which a coroutine that can go on has gone on."""


class LocalEngine:
    """Samples from ``model`` (a module, used in place: a trainer may share it); ``tokenizer`` finds the stop strings.

    ``slots`` bounds the trajectories that are kept at once; more may be open, they take turns. ``max_length`` bounds a
    context with its completion (default: the model's own limit). ``prefill_tokens`` bounds one prefill pass (default:
    2,048 on a CPU, 16,384 elsewhere). Raises ``UserError`` for a model that cannot be served this way.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        *,
        slots: int = 256,
        max_length: int | None = None,
        deterministic: bool = True,
        refill: float = 0.5,
        prefill_tokens: int | None = None,
    ) -> None:
        if slots < 1 or not 0.0 <= refill < 1.0:
            raise UserError(f"slots must be at least 1 and refill in [0, 1), got {slots} and {refill}")
        self.max_length = max_length or _context_length(model)
        check_window(model.config, self.max_length)
        align(model)
        with _evaluating(model):
            check_model(model)
        self.model = model
        self.tokenizer = tokenizer
        self.deterministic = deterministic
        self.refill = refill
        self._batch = Batch(model, slots, prefill_tokens or (2048 if model.device.type == "cpu" else 16384))
        self._rules: dict[tuple[str, ...], StopRule] = {}
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    @property
    def stats(self) -> Stats:
        return self._batch.stats

    @property
    def version(self) -> int:
        return self._batch.version

    @contextmanager
    def session(self) -> Iterator[Session]:
        session = LocalSession()
        self._batch.open[session] = None
        try:
            yield session
        finally:
            self._batch.close(session)
            self._changed.set()

    async def generate(self, token_ids: Sequence[int], sampling: Sampling, *, session: Session) -> Completion:
        """Continue ``token_ids``; cancelling the call takes it out of the batch."""
        if not isinstance(session, LocalSession) or session not in self._batch.open:
            raise EngineError("generate needs an open session of this engine; call it inside `with engine.session()`")
        if session.request is not None:
            raise EngineError("a session generates one completion at a time; open one for each concurrent trajectory")
        request = self._request(token_ids, sampling)
        session.request = request
        self._wake()
        try:
            return await request.future
        finally:
            if session.request is request:
                self._batch.withdraw(session)
                self._changed.set()

    async def load(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Copy ``weights`` into the model; an empty iterable says that a trainer changed this very module already.

        What was cached under the old weights is forgotten: requests under way go on under the new ones (their
        completion is stamped with the old version, the oldest it was sampled with). Raises ``EngineError`` for weights
        of another model.
        """
        self._batch.forget()
        copy_weights(self.model, weights)
        self._batch.version = version

    def _request(self, token_ids: Sequence[int], sampling: Sampling) -> Request:
        check(sampling)
        count = sampling.max_tokens
        if not token_ids:
            raise EngineError("the context is empty: give at least one token")
        if len(token_ids) + count > self.max_length:
            raise EngineError(
                f"a context of {len(token_ids)} tokens and {count} new ones exceed the engine's max_length of "
                f"{self.max_length}; lower the token budget or raise max_length"
            )
        if sampling.stop not in self._rules:
            self._rules[sampling.stop] = StopRule(sampling.stop, self.tokenizer)
        return Request(
            prompt=tuple(token_ids),
            sampling=sampling,
            numbers=uniforms(sampling.seed, count) if sampling.temperature else [0.0] * count,
            rule=self._rules[sampling.stop],
            eos_ids=frozenset(self.tokenizer.eos_ids),
            future=asyncio.get_running_loop().create_future(),
            version=self.version,
        )

    def _wake(self) -> None:
        if self._task is None or self._task.done():
            self._changed = asyncio.Event()
            self._task = asyncio.get_running_loop().create_task(self._serve())
        else:
            self._changed.set()

    async def _serve(self) -> None:
        """The loop: it lives while requests are under way, and runs each forward pass inline."""
        batch, joined = self._batch, 0
        try:
            with _evaluating(self.model):
                while batch.pending:
                    if not self.deterministic:
                        if not batch.admit() and not batch.active:
                            await self._change()
                    elif len(batch.active) <= self.refill * joined:
                        await self._everyone()
                        batch.admit()
                        joined = len(batch.active)
                    if batch.active:
                        batch.decode()
                    await asyncio.sleep(0)
        except BaseException as error:  # cancelled with its event loop, or a bug: nobody may wait for ever
            for session in batch.open:
                if session.request is not None:
                    batch.fail(session, EngineError(f"the engine's loop was stopped by {error!r}"))
            raise

    async def _everyone(self) -> None:
        """Return once no open session is away, and none is about to be opened."""
        settled = 0
        while settled < SETTLE and self._batch.pending:
            if self._batch.away:
                settled = 0
                await self._change()
            else:
                settled += 1
                await asyncio.sleep(0)

    async def _change(self) -> None:
        """Return when a session submits, closes or gives up."""
        self._changed.clear()
        try:
            await asyncio.wait_for(self._changed.wait(), PATIENCE)
        except TimeoutError:
            log.warning(
                "the engine has waited %.0f s for %d open sessions that neither generate nor close",
                PATIENCE,
                self._batch.away,
            )


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Dropout off, and the cache on under gradient checkpointing, whatever mode a trainer left the model in."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _context_length(model: Any) -> int:
    length = getattr(model.config, "max_position_embeddings", None)
    if not length:
        raise UserError(f"{type(model).__name__}'s config names no max_position_embeddings: give the engine max_length")
    return int(length)
