"""Every format that the sets are published in, read from small files made as the published ones are."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from searchr1.data.sets.formats import FORMATS, recognise
from searchr1.data.sets.rows import LeftOut, Source
from searchr1.errors import UserError

HOTPOT: dict[str, Any] = {
    "supporting_facts": [["Dune", 0], ["Frank Herbert", 1], ["Dune", 2]],
    "level": "hard",
    "question": "Where was the author of Dune born? ",
    "context": [["Dune", ["A novel.", "By Frank Herbert."]]],
    "answer": "Tacoma",
    "_id": "5a8b",
    "type": "bridge",
}
HIDDEN = {"_id": "5a8c", "question": "Who?", "context": []}
TWOWIKI: dict[str, Any] = {
    **HOTPOT,
    "_id": "8813",
    "type": "bridge_comparison",
    "supporting_facts": [["A", 0], ["B", 0], ["C", 1], ["D", 1]],
    "evidences": [["A", "director", "C"]],
    "answer_id": "Q199797",
}
MUSIQUE: dict[str, Any] = {
    "id": "2hop__13548_13529",
    "paragraphs": [
        {"idx": 0, "title": "Dune", "paragraph_text": "By Frank Herbert.", "is_supporting": True},
        {"idx": 1, "title": "Emma", "paragraph_text": "By Jane Austen.", "is_supporting": False},
        {"idx": 2, "title": "Frank Herbert", "paragraph_text": "Born in Tacoma.", "is_supporting": True},
    ],
    "question": "Where was the author of Dune born?",
    "question_decomposition": [{"id": 1, "question": "Dune >> author"}, {"id": 2, "question": "where was #1 born"}],
    "answer": "Tacoma",
    "answer_aliases": ["Tacoma, Washington", "Tacoma"],
    "answerable": True,
}
TRIVIA: dict[str, Any] = {
    "Data": [
        {
            "Answer": {
                "Aliases": ["Herbert", "F. Herbert", ""],
                "NormalizedAliases": ["herbert"],
                "Value": "F. Herbert",
            },
            "EntityPages": [],
            "Question": "Who wrote Dune?",
            "QuestionId": "tc_33",
            "SearchResults": [{"Title": "Dune"}],
        },
        {"Answer": {"Aliases": [], "Value": "Emma"}, "Question": "Austen's fourth?", "QuestionId": "tc_34"},
        {"Question": "Hidden?", "QuestionId": "tc_35"},
    ],
    "Domain": "unfiltered-web",
}
POPQA = ["id", "subj", "prop", "obj", "s_wiki_title", "s_pop", "question", "possible_answers"]
LISTS = {"hotpotqa": [HOTPOT, HIDDEN], "2wikimultihopqa": [TWOWIKI]}


def lines(*rows: object) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def popqa(path: Path, *rows: list[str]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerows([POPQA, *rows])
    return path


def write(path: Path, content: str) -> Path:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content.encode()))
    else:
        path.write_text(content, encoding="utf-8")
    return path


def read(path: Path, aliases: Path | None = None, name: str = "nq") -> list[Any]:
    return [row for _, row in FORMATS[recognise(path)](Source(path, name, "test", aliases))]


def test_flashrag(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "test_0", "question": " who wrote dune ", "golden_answers": ["Herbert", "Herbert", " "]},
        {
            "id": "x7",
            "question": "who?",
            "golden_answers": ["me"],
            "metadata": {
                "type": "comparison",
                "level": "hard",
                "supporting_facts": {"title": ["Dune", "Emma", "Dune"], "sent_id": [0, 1, 2]},
                "context": {"title": ["Dune"]},
            },
        },
        {"id": "test_2", "question": "what?", "golden_answers": [], "metadata": {}},
        {"id": "test_3", "question": "what?", "golden_answers": ["a"], "metadata": {"s_wiki_title": "Emma"}},
    ]
    assert read(write(tmp_path / "test.jsonl", lines(*rows))) == [
        {"id": "nq-test-0", "question": "who wrote dune", "answers": ["Herbert"]},
        {
            "id": "x7", "question": "who?", "answers": ["me"], "hops": 2, "supporting_titles": ["Dune", "Emma"],
            "type": "comparison", "level": "hard",
        },
        LeftOut("no answer"),
        {"id": "nq-test-3", "question": "what?", "answers": ["a"], "hops": 1, "supporting_titles": ["Emma"]},
    ]  # fmt: skip


def test_question_files_of_this_package_stay_as_they_are(tmp_path: Path) -> None:
    row = {"id": "q1", "question": "Who?", "answers": ["me"], "dataset": "nq", "hops": 3, "mine": [1], "type": "bridge"}
    assert read(write(tmp_path / "nq.dev.jsonl.gz", lines(row))) == [row]


@pytest.mark.parametrize("name", ["hotpot_dev_distractor_v1.json", "packed.json.gz"])
def test_hotpotqa(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "\ufeff" + json.dumps([HOTPOT, HIDDEN], indent=1))
    assert recognise(path) == "hotpotqa"
    assert read(path) == [
        {
            "id": "5a8b", "question": "Where was the author of Dune born?", "answers": ["Tacoma"], "hops": 2,
            "supporting_titles": ["Dune", "Frank Herbert"], "type": "bridge", "level": "hard",
        },
        LeftOut("no answer"),
    ]  # fmt: skip


def test_2wikimultihopqa_with_its_aliases(tmp_path: Path) -> None:
    path = write(tmp_path / "dev.json", json.dumps([TWOWIKI]))
    assert recognise(path) == "2wikimultihopqa"
    (plain,) = read(path)
    assert (plain["answers"], plain["hops"], plain["supporting_titles"]) == (["Tacoma"], 4, ["A", "B", "C", "D"])
    others = [{"Q_id": "Q199797", "aliases": ["City of Destiny", "Tacoma"], "demonyms": []}, {"Q_id": "Q1"}]
    (more,) = read(path, write(tmp_path / "id_aliases.json", lines(*others)))
    assert more == {**plain, "answers": ["Tacoma", "City of Destiny"]}


def test_musique(tmp_path: Path) -> None:
    rows = [MUSIQUE, {**MUSIQUE, "answerable": False}, {"id": "x", "question": "Hidden?", "paragraphs": []}]
    path = write(tmp_path / "musique_full_v1.0_dev.jsonl", lines(*rows))
    assert recognise(path) == "musique"
    assert read(path) == [
        {
            "id": "2hop__13548_13529", "question": "Where was the author of Dune born?",
            "answers": ["Tacoma", "Tacoma, Washington"], "hops": 2, "supporting_titles": ["Dune", "Frank Herbert"],
            "type": "2hop",
        },
        LeftOut("unanswerable"),
        LeftOut("no answer"),
    ]  # fmt: skip


def test_nq_open(tmp_path: Path) -> None:
    path = write(tmp_path / "NQ-open.dev.jsonl", lines({"question": "who wrote dune", "answer": ["Herbert", "F. H."]}))
    assert recognise(path) == "nq-open"
    assert read(path) == [{"question": "who wrote dune", "answers": ["Herbert", "F. H."]}]


def test_popqa(tmp_path: Path) -> None:
    row = ["4222362", "George Rankin", "occupation", "politician", "George Rankin", "142"]
    path = popqa(
        tmp_path / "popQA.tsv",
        [*row, "What is George Rankin's occupation?", '["politician", "pol.", "\\u00e9lu"]'],
        ["7", "Dune", "author", "", "", "1", 'Who wrote "Dune"?', "[]"],
    )
    assert read(path) == [
        {
            "id": "4222362", "question": "What is George Rankin's occupation?", "hops": 1,
            "answers": ["politician", "pol.", "élu"], "supporting_titles": ["George Rankin"], "type": "occupation",
        },
        LeftOut("no answer"),
    ]  # fmt: skip


def test_bamboogle(tmp_path: Path) -> None:
    path = write(
        tmp_path / "Bamboogle Prerelease - Sheet1.csv",
        "Question,,,,Answer,Answer 2\r\n"
        "Who is the mother of the father of George Washington?,,,,Mildred Warner,Mildred Gale\r\n"
        '"In 2016, who was the host of the longest running talk show?",,,,"Jimmy Fallon\n",\r\n'
        "No answer?,,,,,\r\n"
        ",,,,,\r\n",
    )
    assert read(path) == [
        {
            "question": "Who is the mother of the father of George Washington?",
            "answers": ["Mildred Warner", "Mildred Gale"],
        },
        {"question": "In 2016, who was the host of the longest running talk show?", "answers": ["Jimmy Fallon"]},
        LeftOut("no answer"),
    ]


def test_triviaqa(tmp_path: Path) -> None:
    path = write(tmp_path / "unfiltered-web-dev.json", json.dumps(TRIVIA))
    assert read(path) == [
        {"id": "tc_33", "question": "Who wrote Dune?", "answers": ["Herbert", "F. Herbert"]},
        {"id": "tc_34", "question": "Austen's fourth?", "answers": ["Emma"]},
        LeftOut("no answer"),
    ]


def test_triviaqa_is_known_by_its_beginning(tmp_path: Path) -> None:
    large = {"Data": [{**TRIVIA["Data"][0], "SearchResults": [{"Text": "x" * (1 << 20)}]}]}
    assert recognise(write(tmp_path / "large.json", json.dumps(large))) == "triviaqa"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", lines({"id": "1", "text": "?"}), r"a\.jsonl: unknown format: its first row has the keys id, text"),
        ("a.txt", "hello", r"a\.txt: unknown format: it does not begin with a JSON object; name it with --format f"),
        ("a.json", "", "does not begin with a JSON object"),
        ("f.jsonl", lines({"id": "1", "golden_answers": ["a"]}), r"f\.jsonl:1: missing key 'question'; it has "),
        ("f.jsonl", lines({"id": "1", "question": "?", "golden_answers": "a"}), r":1: 'golden_answers': expected"),
        ("f.jsonl", lines({"question": "?", "golden_answers": ["a"], "metadata": "x"}), r":1: 'metadata': expected an"),
        ("h.json", json.dumps([HOTPOT, {**HOTPOT, "question": " "}]), r"h\.json, row 2: 'question': expected a non-bl"),
        ("h.json", json.dumps([{**HOTPOT, "answer": 3}]), r"h\.json, row 1: 'answer': expected a non-blank"),
        ("h.json", json.dumps([{**HOTPOT, "supporting_facts": ["x"]}]), r"row 1: 'supporting_facts': expected a list"),
        ("h.json", json.dumps([HOTPOT, 7]), r"h\.json, row 2: expected a JSON object, got int"),
        ("h.json", json.dumps([HOTPOT])[:-1], r"h\.json: expected one JSON list of questions"),
        ("m.jsonl", lines({**MUSIQUE, "paragraphs": [{"is_supporting": True}]}), r"m\.jsonl:1: missing key 'title'"),
        ("m.jsonl", lines({**MUSIQUE, "paragraphs": ["x"]}), r"m\.jsonl:1: 'paragraphs': expected a list of objects"),
        ("m.jsonl", lines({**MUSIQUE, "answer_aliases": "x"}), r"m\.jsonl:1: 'answer_aliases': expected a list of str"),
        ("n.jsonl", lines({"question": "?", "answer": "a"}), r"n\.jsonl:1: 'answer': expected a list of strings"),
        ("t.json", json.dumps({"Data": [{**TRIVIA["Data"][0], "Answer": "a"}]}), r"t\.json, row 1: 'Answer': exp"),
        ("t.json", json.dumps({"Data": {}}), r't\.json: expected one JSON object with a list "Data"'),
        ("p.tsv", "id\tquestion\n1\twho?\n", r"p\.tsv:1: missing column 'possible_answers'; the first line names id"),
        ("p.tsv", "question\tpossible_answers\nwho?\n", r"p\.tsv:2: expected 2 columns, got 1"),
        ("p.tsv", "question\tpossible_answers\nwho?\t[a]\n", r"p\.tsv:2: 'possible_answers': expected a JSON list"),
        ("b.csv", "Question,Answer\nwho?,a\n,b\n", r"b\.csv:3: 'question': expected a non-blank string"),
        ("b.csv", 'Question,Answer\n"who?,a\n', r"b\.csv: not a table after line"),
        ("b.csv", "", r"b\.csv:1: missing column 'question'"),
    ],
)  # fmt: skip
def test_malformed(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(write(tmp_path / name, content))


def test_broken_bytes(tmp_path: Path) -> None:
    for name in ("a.json", "a.csv.gz"):
        (tmp_path / name).write_bytes(gzip.compress(b"[" * 10_000, compresslevel=0)[:-9000])
        with pytest.raises(UserError, match="broken gzip data"):
            read(tmp_path / name)
    (tmp_path / "b.csv").write_bytes(b"Question,Answer\nwho\xff?,a\n")
    with pytest.raises(UserError, match="expected UTF-8 text"):
        read(tmp_path / "b.csv")
    with pytest.raises(UserError, match="does not exist"):
        read(tmp_path / "none.json")
