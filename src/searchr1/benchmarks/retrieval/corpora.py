"""Corpora of any size and real questions to ask them, kept in the work folder.

Real passages are taken as they are while they last. Beyond that, a passage is sentences of them drawn at random, as
many as a real passage has, under the title of a real one: word frequencies, lengths and vocabulary stay real, while
topics mix. The frequency of every word grows with the corpus, so what is measured is closer to the worst case.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path

from searchr1.benchmarks.retrieval.base import SEED
from searchr1.data.atlas.questions import FORMS
from searchr1.data.atlas.text import passage as atlas_passage
from searchr1.data.atlas.world import World
from searchr1.data.atlas.write import mixed_questions
from searchr1.data.jsonl import encode, replacing
from searchr1.data.questions import read_questions
from searchr1.errors import UserError
from searchr1.retrieval.corpus import read_corpus
from searchr1.types import Passage

CORPUS = "merged_corpus.jsonl.gz"
_SENTENCE_END = re.compile(r"(?<=[.!?]) +")


@dataclass(frozen=True, slots=True)
class Corpus:
    """``folder`` holds ``corpus.jsonl`` alone, as ``{"id", "contents"}``, which every system here can read."""

    folder: Path
    passages: int
    label: str
    """As in "37,000 real passages"."""

    @property
    def file(self) -> Path:
        return self.folder / "corpus.jsonl"


@dataclass(frozen=True)
class Library:
    """Makes corpora under ``work``, from the real data in ``data`` or from the generated atlas."""

    work: Path
    data: Path

    @property
    def real(self) -> bool:
        return (self.data / CORPUS).is_file() and any(self.data.glob("*.dev.jsonl.gz"))

    def corpus(self, passages: int, say: Callable[[str], None]) -> Corpus:
        """The corpus of that size; a larger one begins with the smaller ones. Raises UserError below 100 passages."""
        if passages < 100:
            raise UserError(f"--passages: expected at least 100, got {passages}")
        kind, stream = self._source(passages)
        made = Corpus(self.work / "corpora" / f"{kind}-{passages}", passages, f"{passages:,} {kind} passages")
        if not made.file.is_file():
            say(f"writing {made.label}")
            with replacing(made.file) as out:
                for page in stream():
                    out.write(encode({"id": page.id, "contents": page.contents}) + b"\n")
        return made

    def questions(self, passages: int, count: int) -> list[str]:
        """``count`` different questions (fewer where there are fewer), the data sets in their shares."""
        if self.real:
            files = sorted(self.data.glob("*.dev.jsonl.gz"))
            found = list(dict.fromkeys(question.text for file in files for question in read_questions(file)))
            return random.Random(SEED).sample(found, min(count, len(found)))
        world = World(SEED, passages)
        shares = [1 / len(FORMS)] * len(FORMS)
        return list(dict.fromkeys(question.text for question in mixed_questions(world, shares, count, test=True)))

    def _source(self, passages: int) -> tuple[str, Callable[[], Iterator[Passage]]]:
        if not self.real:
            world = World(SEED, passages)
            return "generated", lambda: (atlas_passage(world, entity) for entity in range(passages))
        file = self.data / CORPUS
        real = sum(1 for _ in islice(read_corpus(file), passages))
        if real == passages:
            return "real", lambda: islice(read_corpus(file), passages)
        return "recombined", partial(_recombined, file, passages)


def _recombined(file: Path, passages: int) -> Iterator[Passage]:
    real = list(read_corpus(file))
    return islice(chain(real, recombine(real)), passages)


def recombine(real: list[Passage], seed: int = SEED) -> Iterator[Passage]:
    """Passages of sentences of ``real`` ones, without end, the same for the same seed."""
    generator = random.Random(seed)
    split = [_SENTENCE_END.split(page.text) for page in real]
    sentences = list(chain.from_iterable(split))
    number = 0
    while True:
        wanted = len(split[int(generator.random() * len(split))])
        text = " ".join(sentences[int(generator.random() * len(sentences))] for _ in range(wanted))
        yield Passage(f"recombined-{number}", real[int(generator.random() * len(real))].title, text)
        number += 1
