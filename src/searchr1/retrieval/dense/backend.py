"""The ``dense`` kind of index: vectors of an encoder, searched by faiss (Douze et al. 2024, arXiv:2401.08281).

An index folder holds, beside the passages,

index.faiss         what is searched, unless it is a published file that stays where it is
dense.json          `Facts`: layout, parameter and measured recall, and what the vectors were made by
kept/*.vectors.npy  the vectors in half precision, for the next build (see `searchr1.retrieval.dense.vectors`)
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import msgspec

from searchr1.errors import UserError
from searchr1.ports import RetrieverInfo
from searchr1.retrieval.dense.encoders import Encoder, load_encoder
from searchr1.retrieval.dense.layouts import (
    LAYOUTS,
    LayoutName,
    build_index,
    choices,
    choose,
    load_faiss,
    memory_of,
    open_file,
    set_parameter,
    tune,
)
from searchr1.retrieval.dense.memory import free_memory
from searchr1.retrieval.dense.published import check_published, describe
from searchr1.retrieval.dense.retriever import DenseRetriever
from searchr1.retrieval.dense.runtimes import Device, RuntimeName
from searchr1.retrieval.dense.vectors import Vectors, embed, remove_others
from searchr1.retrieval.index import KEPT, Estimate, Plan, open_store
from searchr1.types import Passage

FACTS_FILE, INDEX_FILE = "dense.json", "index.faiss"
_TUNED_WITH = 200  # queries
_TUNED_AT = 10  # recall@10
_QUERY_WORDS = 12  # of a passage without a title
_TIMED_WITH = 8  # passages
_ENCODER_MEMORY = 1.2e9  # PyTorch or ONNX Runtime with a model of the size of BERT
_TEXT_FACTOR = 1.02  # of the text: the stored passages and where each begins


class Facts(msgspec.Struct, frozen=True):
    """What ``dense.json`` says. ``recall`` is recall@10 against exact search, None where it was not measured."""

    layout: str
    parameter: str
    value: int
    recall: float | None
    dimension: int
    encoder: str
    fingerprint: str
    faiss_file: str = ""
    """A published index: its absolute path, its size and the time of its last change."""
    size: int = 0
    mtime_ns: int = 0


@dataclass(frozen=True, slots=True)
class Dense:
    """The ``dense`` backend and its options."""

    remote: ClassVar[bool] = False
    encoder: str = "sentence-transformers/all-MiniLM-L6-v2"
    """A name on the Hugging Face hub, or the folder of a model."""
    layout: Literal["auto", "flat", "fp16", "sq8", "hnsw", "ivf-sq8", "ivf-pq"] = "auto"
    """How faiss keeps the vectors; auto: see `searchr1.retrieval.dense.layouts.choose`."""
    recall: float = 0.95
    """Recall@10 against exact search that hnsw and ivf are tuned to."""
    runtime: RuntimeName = "auto"
    device: Device = "auto"
    batch_size: int = 32
    """Texts that the encoder reads at once."""
    max_length: int = 256
    """Tokens of a text that are read."""
    query_prefix: str | None = None
    passage_prefix: str | None = None
    """Put before every text; None: as the encoder's family was trained."""
    keep_vectors: bool = True
    """Whether the vectors stay in the folder, for another layout or a longer corpus."""
    faiss_file: str = ""
    """A faiss index of the same passages, made elsewhere; nothing is encoded then, and the file stays where it is."""

    def __post_init__(self) -> None:
        if self.batch_size < 1 or not 0 < self.recall <= 1:
            raise UserError(
                f"batch_size, recall: expected at least 1 and a number above 0 and up to 1, got {self.batch_size} "
                f"and {self.recall}"
            )
        if self.faiss_file and self.layout != "auto":
            raise UserError(f"layout: {self.faiss_file} has its own; leave layout, or faiss_file, out")

    def plan(self, corpus: Estimate) -> Plan:
        """Times a few passages of the sample, so the encoder is loaded."""
        text = _TEXT_FACTOR * corpus.text_bytes
        if self.faiss_file:
            return Plan(_ENCODER_MEMORY, text)
        encoder = self._load()
        count, dimension = corpus.passages, encoder.dimension
        chosen = self._layout(count, dimension)
        memory = memory_of(chosen, count, dimension)
        vectors = 2.0 * dimension * count
        rows = choices(count, dimension, _seconds_a_passage(encoder, corpus.sample), chosen)
        return Plan(_ENCODER_MEMORY + memory, text + memory + vectors, tuple(rows))

    def build(self, folder: Path, passages: Iterable[Passage]) -> None:
        """Encode the stream block by block as it is read, then index and tune. Raises UserError."""
        encoder = self._load()
        load_faiss()  # before the hours of encoding
        if self.faiss_file:
            facts = self._import(encoder, sum(1 for _ in passages))
        else:
            queries = SampledQueries(passages)
            vectors = embed(folder / KEPT, queries, encoder)
            if not len(vectors):
                raise UserError("expected a corpus with passages, got none")
            facts = self._index(folder / INDEX_FILE, vectors, encoder, queries.chosen())
            remove_others(folder / KEPT, vectors)
            if not self.keep_vectors:
                vectors.remove()
        (folder / FACTS_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(facts), indent=2) + b"\n")

    def open(self, folder: Path, info: RetrieverInfo) -> DenseRetriever:
        """Loads the encoder and maps the index. Raises UserError when either is not what was built with."""
        store = open_store(folder, info)
        try:
            facts = msgspec.json.decode((folder / FACTS_FILE).read_bytes(), type=Facts)
        except (OSError, msgspec.DecodeError) as error:
            raise UserError(f"{folder / FACTS_FILE}: cannot be read: {error}; build the index again") from error
        encoder = replace(self, encoder=facts.encoder)._load()
        if encoder.fingerprint != facts.fingerprint:
            raise UserError(f"{folder}: {facts.encoder} is not the encoder that it was built with; build it again")
        if facts.faiss_file:
            index = check_published(facts.faiss_file, len(store), encoder.dimension, (facts.size, facts.mtime_ns))
        else:
            index = open_file(folder / INDEX_FILE)
        if (index.ntotal, index.d) != (len(store), encoder.dimension):
            raise UserError(
                f"{folder}: expected {len(store)} vectors of {encoder.dimension} dimensions, got {index.ntotal} of "
                f"{index.d}; build it again"
            )
        set_parameter(index, facts.parameter, facts.value)
        return DenseRetriever(index, encoder, store, info)

    def _load(self) -> Encoder:
        return load_encoder(
            self.encoder,
            runtime=self.runtime,
            device=self.device,
            batch_size=self.batch_size,
            max_length=self.max_length,
            query_prefix=self.query_prefix,
            passage_prefix=self.passage_prefix,
        )

    def _layout(self, count: int, dimension: int) -> LayoutName:
        return choose(count, dimension, free_memory()) if self.layout == "auto" else self.layout

    def _index(self, path: Path, vectors: Vectors, encoder: Encoder, queries: list[str]) -> Facts:
        layout = self._layout(len(vectors), vectors.dimension)
        index = build_index(layout, vectors)
        asked = encoder.encode_queries(queries)
        parameter = LAYOUTS[layout].parameter
        value, recall = tune(index, parameter, asked, vectors.nearest(asked, _TUNED_AT), self.recall)
        load_faiss().write_index(index, str(path))
        return Facts(
            layout, parameter, value, round(recall, 4), vectors.dimension, self._encoder_path(), encoder.fingerprint
        )

    def _import(self, encoder: Encoder, passages: int) -> Facts:
        path = Path(self.faiss_file).resolve()
        index = check_published(str(path), passages, encoder.dimension)
        layout, parameter, value = describe(index)
        status = path.stat()
        return Facts(
            layout,
            parameter,
            value,
            None,
            encoder.dimension,
            self._encoder_path(),
            encoder.fingerprint,
            str(path),
            status.st_size,
            status.st_mtime_ns,
        )

    def _encoder_path(self) -> str:
        """Absolute where it is a folder: an index may be opened from elsewhere than where it was built."""
        return str(Path(self.encoder).resolve()) if Path(self.encoder).is_dir() else self.encoder


class SampledQueries:
    """Passes a stream on, and draws from it what people may ask: titles or, without one, a passage's first words.

    A sample of the whole stream, with the same seed each time (reservoir sampling: Vitter 1985, algorithm R).
    """

    def __init__(self, passages: Iterable[Passage]) -> None:
        self._passages = passages
        self._sample: list[str] = []

    def __iter__(self) -> Iterator[Passage]:
        self._sample, draw = [], random.Random(0)
        for number, passage in enumerate(self._passages):
            place = number if number < _TUNED_WITH else draw.randrange(number + 1)
            if place < _TUNED_WITH:
                query = passage.title.strip() or " ".join(passage.text.split()[:_QUERY_WORDS])
                self._sample[place : place + 1] = [query]
            yield passage

    def chosen(self) -> list[str]:
        """Distinct, at most 200."""
        return list(dict.fromkeys(self._sample))


def _seconds_a_passage(encoder: Encoder, sample: tuple[Passage, ...]) -> float:
    timed = sample[:_TIMED_WITH]
    encoder.encode_passages(timed)  # the first run is slower
    started = time.perf_counter()
    encoder.encode_passages(timed)
    return (time.perf_counter() - started) / max(1, len(timed))
