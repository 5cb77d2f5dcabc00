"""BM25 on real Wikipedia passages and HotpotQA questions, where they are at hand."""

import os
from pathlib import Path

import pytest

from searchr1.data.questions import read_questions
from searchr1.evaluation.recall import recall
from searchr1.retrieval.index import build_index, open_index

_BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "data"
DATA = Path(os.environ.get("SEARCHR1_DATA", _BESIDE))
CORPUS, QUESTIONS = DATA / "hotpotqa_corpus.jsonl.gz", DATA / "hotpotqa.dev.jsonl.gz"


@pytest.mark.skipif(
    not (CORPUS.is_file() and QUESTIONS.is_file()),
    reason=f"needs {CORPUS.name} and {QUESTIONS.name} in {DATA}; set SEARCHR1_DATA to their folder",
)
async def test_hotpotqa_recall(tmp_path: Path) -> None:
    manifest = build_index(CORPUS, tmp_path / "index")
    assert manifest.passages == 17_558
    found = await recall(open_index(tmp_path / "index"), read_questions(QUESTIONS), (3,))
    assert found["n"] == 465
    assert found["answer_recall"]["3"]["value"] > 0.58
    assert found["title_recall"]["3"]["value"] > 0.63
