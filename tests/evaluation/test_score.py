import json
from pathlib import Path
from typing import Any

import pytest

from searchr1.errors import UserError
from searchr1.evaluation.score import read_score_rows, score_rows


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_rows_and_means(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.jsonl",
        {"answers": ["Paris"], "prediction": "the paris!", "id": 5},
        {"answers": ["Lyon", "Paris"], "prediction": "Paris, France"},
        {"answers": ["Paris"], "prediction": None},
        {"answers": ["Paris"], "prediction": ""},
    )
    right, covered = dict.fromkeys(("exact_match", "cover_match", "f1"), 1.0), {"exact_match": 0.0, "cover_match": 1.0}
    none = dict.fromkeys(right, 0.0)
    assert score_rows(read_score_rows(path)) == {
        "n": 4,
        "exact_match": 0.25,
        "cover_match": 0.5,
        "f1": pytest.approx(5 / 12),
        "rows": [right, covered | {"f1": pytest.approx(2 / 3)}, none, none],
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "expected one JSON object a line"),
        ({"answers": ["a"]}, "missing key 'prediction'"),
        ({"prediction": "a"}, "missing key 'answers'"),
        ({"answers": "a", "prediction": "a"}, "'answers': expected a non-empty list of strings, got 'a'"),
        ({"answers": [], "prediction": "a"}, "'answers': expected a non-empty list of strings"),
        ({"answers": [1], "prediction": "a"}, "'answers': expected a non-empty list of strings"),
        ({"answers": ["a"], "prediction": ["a"]}, "'prediction': expected a string"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, row: Any, message: str) -> None:
    path = write(tmp_path / "p.jsonl", {"answers": ["a"], "prediction": "a"}, row)
    with pytest.raises(UserError, match=rf"p\.jsonl:2: {message}"):
        read_score_rows(path)


def test_empty(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"p\.jsonl: expected at least one row"):
        read_score_rows(write(tmp_path / "p.jsonl"))
    with pytest.raises(ValueError, match="no rows"):
        score_rows([])
