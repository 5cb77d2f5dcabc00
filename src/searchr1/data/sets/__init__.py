"""The question answering sets of arXiv 2503.09516 and the Wikipedia that it searches: where they are, and how large.

A file that is fetched is checked against the hash that the hub itself gives for it. What is pinned here is checked on
top: how many questions a split has, and for some files the SHA-256 that several public projects found independently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FLASHRAG = "RUC-NLPIR/FlashRAG_datasets"


@dataclass(frozen=True, slots=True)
class File:
    """A file of a data set repository on the hub. ``size`` (bytes) and ``sha256`` are None where nobody pinned them."""

    repository: str
    path: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """``questions``: how many it has. ``content``: `searchr1.data.prepare.content_hash` of it, None where unknown."""

    file: File
    questions: int | None = None
    content: str | None = None


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One set. ``tested`` is the split that the paper tests on; ``hops`` is what every question of the set needs.

    A ``mixed`` set says in every row which set the question is of.
    """

    title: str
    splits: Mapping[str, Split]
    tested: str
    licence: str
    origin: str
    hops: int | None = None
    mixed: bool = False


def _flashrag(name: str, sizes: Mapping[str, int], sha256: Mapping[str, str] | None = None) -> dict[str, Split]:
    known = sha256 or {}
    return {
        split: Split(File(FLASHRAG, f"{name}/{split}.jsonl", sha256=known.get(split)), questions)
        for split, questions in sizes.items()
    }


# SHA-256 of files: what the Git LFS pointers and download scripts of at least two public repositories say of
# FlashRAG_datasets at revision bcafb8dd, wiki-18-e5-index at a4d31160 and wiki-18-corpus at 69c1c00f. Those of nq test
# and musique dev are from one each, whose other files are FlashRAG's; a copy of the latter in a third has its size.
BENCHMARKS: Mapping[str, Benchmark] = {
    "nq": Benchmark(
        title="Natural Questions",
        splits=_flashrag(
            "nq",
            {"train": 79_168, "dev": 8_757, "test": 3_610},
            {
                "train": "572685d3f384d9c37479b1fb14232984c85ff13b58923c0c9442232bd5d5647b",
                "test": "843bebb083064abb6eb23751f2c8c187e5c448c23900b42ca92f91502a9b7488",
            },
        ),
        tested="test",
        licence="CC BY-SA 3.0",
        origin="https://github.com/google-research-datasets/natural-questions",
        hops=1,
    ),
    "triviaqa": Benchmark(
        title="TriviaQA",
        splits=_flashrag(
            "triviaqa",
            {"train": 78_785, "dev": 8_837, "test": 11_313},
            {"test": "8f0891dece17a6a6472c87bf0e8c555c80673853d8dc7780be4d47158ec85290"},
        ),
        tested="test",
        licence="unverified",
        origin="https://nlp.cs.washington.edu/triviaqa",
        hops=1,
    ),
    "popqa": Benchmark(
        title="PopQA",
        splits=_flashrag(
            "popqa", {"test": 14_267}, {"test": "f976372fce3d7fe01b070357040391f10bd2710eeaa7c40d21c6574ffcad6cb8"}
        ),
        tested="test",
        licence="MIT (repository)",
        origin="https://github.com/AlexTMallen/adaptive-retrieval",
        hops=1,
    ),
    "hotpotqa": Benchmark(
        title="HotpotQA",
        splits=_flashrag(
            "hotpotqa",
            {"train": 90_447, "dev": 7_405},
            {
                "train": "a81274abafa899ec0ee073102edbe6bb694a8a1174201b4e43e2bc6c98964d1a",
                "dev": "434ec155867019396312f3d466ce3406c71fe8a2917f49f63bb646ec5ad2ff52",
            },
        ),
        tested="dev",
        licence="CC BY-SA 4.0",
        origin="https://hotpotqa.github.io",
        hops=2,
    ),
    "2wikimultihopqa": Benchmark(
        title="2WikiMultihopQA",
        splits=_flashrag(
            "2wikimultihopqa",
            {"train": 15_000, "dev": 12_576},
            {"dev": "b4d74d73d1cb3c0632c665a85e1e5060e3411968b807721618cfd2464fc905e3"},
        ),
        tested="dev",
        licence="Apache-2.0 (repository)",
        origin="https://github.com/Alab-NII/2wikimultihop",
    ),
    "musique": Benchmark(
        title="MuSiQue",
        splits=_flashrag(
            "musique",
            {"train": 19_938, "dev": 2_417},
            {"dev": "d1cc08bcc91b060ba67c1e12881789e1315fb9f85d46f03a3413dd5e0f2ed02c"},
        ),
        tested="dev",
        licence="CC BY 4.0",
        origin="https://github.com/StonyBrookNLP/musique",
    ),
    "bamboogle": Benchmark(
        title="Bamboogle",
        splits=_flashrag(
            "bamboogle", {"test": 125}, {"test": "c9703dae6bb1ceb9e2df77be45da28cb12aa040d2f471507890a461296968f3f"}
        ),
        tested="test",
        licence="unverified",
        origin="https://github.com/ofirpress/self-ask",
        hops=2,
    ),
    "nq_hotpotqa_train": Benchmark(
        title="NQ and HotpotQA, what Search-R1 trains on",
        splits={
            "train": Split(File("PeterJinGo/nq_hotpotqa_train", "train.parquet"), 169_615),
            "test": Split(File("PeterJinGo/nq_hotpotqa_train", "test.parquet"), 51_713),
        },
        tested="train",
        licence="those of the sets in it",
        origin="https://huggingface.co/datasets/PeterJinGo/nq_hotpotqa_train",
        mixed=True,
    ),
}
"""By name. The seven that the paper tests on have 51,713 questions in their ``tested`` splits."""


@dataclass(frozen=True, slots=True)
class Published:
    """Something large to search in. ``files`` follow each other; ``passages`` is how many it holds.

    ``unpacked`` is the size in bytes of what is inside the one file, 0 where the files are taken as they are;
    ``memory`` is what a search in it reads.
    """

    title: str
    files: tuple[File, ...]
    passages: int
    licence: str
    unpacked: int = 0
    memory: int = 0


PUBLISHED: Mapping[str, Published] = {
    "wiki18": Published(
        title="Wikipedia of December 2018 in passages of 100 words",
        files=(
            File(
                "PeterJinGo/wiki-18-corpus",
                "wiki-18.jsonl.gz",  # in spite of its name a gzipped tar archive with one JSONL file in it
                5_123_307_260,
                "7abd929223399cd63c52b499f289bf4f9039be1e9f8c43e1cb3938305b2317db",
            ),
        ),
        passages=21_015_324,
        licence="Wikipedia, CC BY-SA",
        unpacked=14_393_573_105,
    ),
    "wiki18_e5": Published(
        title="its index for intfloat/e5-base-v2, flat, 32 bits",
        files=(
            File(
                "PeterJinGo/wiki-18-e5-index",
                "part_aa",
                42_949_672_960,
                "a8a6a246951da4bbc8771a223283ef61963882a32864d9044ec00abb90fc3023",
            ),
            File(
                "PeterJinGo/wiki-18-e5-index",
                "part_ab",
                21_609_402_413,
                "b6d9bc943626fe7cb44de4c849e9379e7f272ab216c0552acbcf2390cc033c11",
            ),
        ),
        passages=21_015_324,
        licence="Wikipedia, CC BY-SA",
        memory=21_015_324 * 768 * 4,
    ),
}
"""By name. The two parts of the index are 45 bytes, faiss's header, longer than its vectors."""
