"""What a search engine finds, put into a better order by a model that reads query and passage.

A cross-encoder reads the two together (Nogueira and Cho 2019, arXiv:1901.04085). A bi-encoder, which reads each alone
and compares the two vectors, is cheaper and weaker.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from searchr1.errors import SearchUnavailable, UserError
from searchr1.ports import Retriever, RetrieverInfo
from searchr1.retrieval.batching import deduplicate, search_distinct
from searchr1.retrieval.counting import counts_of, per_question
from searchr1.retrieval.dense.encoders import load_encoder, model_folder
from searchr1.retrieval.dense.runtimes import Device, missing
from searchr1.retrieval.queries import MAX_K, check_k, clean
from searchr1.retrieval.spec import open_retriever
from searchr1.types import Passage

Pair: TypeAlias = tuple[str, Passage]
Scorer: TypeAlias = Callable[[Sequence[Pair]], Sequence[float]]
"""Pairs of a query and a passage -> how well they match, one number a pair."""

_PAIR_HEADS = ("ForSequenceClassification", "ForCausalLM")
# The last bits of a score depend on what else was in its batch. Rounded, a search finds the same beside any other.
_SCORE_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Rerank:
    """The ``rerank`` search engine: ``rerank:inner=wiki.bm25,depth=20``."""

    inner: str | dict[str, Any]
    """The spec of the search engine whose passages are ranked anew."""
    model: str = "cross-encoder/ms-marco-MiniLM-L6-v2"
    """The folder of a model, or its name on the Hugging Face hub."""
    scorer: Literal["cross-encoder", "bi-encoder"] = "cross-encoder"
    """What the model is. A cross-encoder's score is its logit, a bi-encoder's the similarity it was trained for."""
    depth: int = 50
    """Passages of ``inner`` that are ranked; never fewer than are wanted."""
    batch_size: int = 32
    max_length: int = 512
    """Tokens of query and passage together, for a bi-encoder of each; longer ones are cut."""
    device: Device = "auto"

    def __post_init__(self) -> None:
        if not 1 <= self.depth <= MAX_K:
            raise UserError(f"depth: expected a number of passages from 1 to {MAX_K}, got {self.depth}")
        for name in ("batch_size", "max_length"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: expected at least 1, got {getattr(self, name)}")

    def open(self) -> Retriever:
        """The model is loaded by the first search."""
        load = _cross_encoder if self.scorer == "cross-encoder" else _bi_encoder
        return RerankRetriever(open_retriever(self.inner), lambda: load(self), self.depth)


class RerankRetriever:
    """Ranks what ``inner`` finds by the scores of the scorer that ``load`` makes; ties keep the order of ``inner``.

    All pairs of a search are scored together, in one worker thread: the searches of one moment come one after the
    other, and the event loop stays free.
    """

    def __init__(self, inner: Retriever, load: Callable[[], Scorer], depth: int = 50) -> None:
        self._inner = inner
        self._load = load
        self._depth = depth
        self._scorer: Scorer | None = None
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rerank")
        self.per_question = per_question(inner)

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """The best ``k`` of the passages that are found for each query, or all when they are fewer.

        Raises SearchUnavailable when ``inner`` is, or the model fails; UserError when it cannot be loaded.
        """
        check_k(k)
        if not queries:
            return []
        distinct, positions = deduplicate([clean(query) for query in queries])
        found = await search_distinct(self._inner, distinct, max(k, self._depth))
        pairs = [(query, _cleaned(p)) for query, passages in zip(distinct, found, strict=True) for p in passages]
        scores = iter(await asyncio.get_running_loop().run_in_executor(self._worker, self._score, pairs))
        ranked = [_ranked([(next(scores), passage) for passage in passages])[:k] for passages in found]
        return [list(ranked[position]) for position in positions]

    async def info(self) -> RetrieverInfo:
        inner = await self._inner.info()
        return RetrieverInfo("rerank", inner.passages, inner.corpus_hash)

    def counts(self) -> dict[str, float]:
        return counts_of([self._inner])

    def _score(self, pairs: Sequence[Pair]) -> list[float]:
        if self._scorer is None:  # also without a pair: a model that is not there is found out by the first search
            self._scorer = self._load()
        if not pairs:
            return []
        try:
            scores = [round(float(score), _SCORE_DIGITS) for score in self._scorer(pairs)]
        except RuntimeError as error:  # what torch raises, as when the device's memory is full
            reason = str(error).partition("\n")[0]
            raise SearchUnavailable(f"rerank: the model failed: {reason}; a smaller batch_size may help") from error
        if len(scores) != len(pairs) or not all(map(math.isfinite, scores)):
            raise SearchUnavailable(f"rerank: expected {len(pairs)} finite scores from the model, got others")
        return scores


def _cleaned(passage: Passage) -> Passage:
    return Passage(passage.id, clean(passage.title), clean(passage.text))


def _ranked(scored: Sequence[tuple[float, Passage]]) -> list[Passage]:
    in_order = sorted(scored, key=lambda one: -one[0])  # stable
    return [Passage(p.id, p.title, p.text, score) for score, p in in_order]


def _cross_encoder(options: Rerank) -> Scorer:
    try:
        import torch
        from sentence_transformers import CrossEncoder
        from transformers import AutoConfig
    except ImportError as error:
        raise missing(error) from error
    device = None if options.device == "auto" else options.device
    folder = str(model_folder(options.model, "model"))
    try:
        heads = AutoConfig.from_pretrained(folder).architectures or [""]
        if not heads[0].endswith(_PAIR_HEADS):  # it would be given a head of random weights
            raise UserError(
                f"model: expected a cross-encoder, and {options.model} ({heads[0] or 'no architecture'}) scores no "
                "pairs; for a model of single texts set scorer = 'bi-encoder'"
            )
        model = CrossEncoder(folder, max_length=options.max_length, device=device)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"model: {options.model} cannot be loaded as a cross-encoder: {reason}") from error
    if model.num_labels != 1:
        raise UserError(f"model: expected a cross-encoder with one score, {options.model} has {model.num_labels}")

    def score(pairs: Sequence[Pair]) -> Sequence[float]:
        # The logit: a sigmoid on top keeps the order, but runs into ties at its ends.
        found: Any = model.predict(
            [(query, f"{passage.title}\n{passage.text}") for query, passage in pairs],
            batch_size=options.batch_size,
            activation_fn=torch.nn.Identity(),
            show_progress_bar=False,
        )
        return [float(one) for one in found]

    return score


def _bi_encoder(options: Rerank) -> Scorer:
    encoder = load_encoder(
        options.model,
        device=options.device,
        batch_size=options.batch_size,
        max_length=options.max_length,
        option="model",
    )

    def score(pairs: Sequence[Pair]) -> Sequence[float]:
        queries, query_of = deduplicate([query for query, _ in pairs])
        contents, passage_of = deduplicate([passage.contents for _, passage in pairs])
        passages = {passage.contents: passage for _, passage in pairs}
        query_vectors = encoder.encode_queries(queries)[query_of]
        passage_vectors = encoder.encode_passages([passages[one] for one in contents])[passage_of]
        return [float(one) for one in np.einsum("pd,pd->p", query_vectors, passage_vectors)]

    return score
