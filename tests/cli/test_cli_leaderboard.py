"""``leaderboard``: every format, hostile names, and what is refused."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from evaluations import settings, write
from rich.console import Console

from searchr1.commands.leaderboard import _show
from searchr1.leaderboard.board import build_board
from searchr1.leaderboard.entries import read_entries

HOSTILE = "\x1b[2J</title><script>alert(1)</script>|`**\\input{x}_&%$#~^{}\n\u202e\ud800"


class Page(HTMLParser):
    """Tags, attributes and text as a browser sees them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.values: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.values += [value or "" for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    sets = {name: [1.0] * 5 + [0.0] * 5 for name in ("nq", "bamboogle")}
    more = {name: [1.0] * 9 + [0.0] for name in sets}
    return [
        write(tmp_path / "a", sets, settings("RAG", agent="rag")),
        write(tmp_path / "b", more, settings("GRPO")),
    ]


def test_on_a_terminal(searchr1: Any, folders: list[Path]) -> None:
    result = searchr1("leaderboard", *folders)
    assert (result.exit_code, result.stderr) == (0, "")
    words = result.stdout.split()
    assert "Exact match on 20 questions, %" in result.stdout
    for word in ("NQ", "Bamboogle", "average", "50.0*", "90.0", "23.7–76.3", "retrieved"):
        assert word in words
    assert words.index("NQ") < words.index("Bamboogle") < words.index("average")
    assert "not significantly different" in result.stdout


def test_narrow_terminals_get_several_tables(folders: list[Path]) -> None:
    into = StringIO()
    _show(build_board(read_entries(folders)), Console(file=into, width=36))
    assert into.getvalue().count("90.0") == 3
    assert "…" not in into.getvalue().split("Per question")[0]


def test_markdown_and_latex(searchr1: Any, folders: list[Path]) -> None:
    markdown = searchr1("leaderboard", *folders, "--format", "markdown").stdout
    assert "|  | NQ | Bamboogle | average |\n| --- | ---: | ---: | ---: |\n" in markdown
    assert "| RAG | 50.0\\* [23.7, 76.3] | 50.0\\* [23.7, 76.3] | 50.0 [" in markdown
    assert "| GRPO | **90.0** [59.6, 98.2] |" in markdown
    assert "| GRPO | 2.00 | 50.0 | 300 | 0.50 | 2.22 | 55.6 | 333 | 0.56 | 1 | 0 |" in markdown
    latex = searchr1("leaderboard", *folders, "--format", "latex").stdout
    assert "\\toprule\n & NQ & Bamboogle & average \\\\\n\\midrule\n" in latex
    assert "GRPO & \\textbf{90.0} {\\scriptsize [59.6, 98.2]} &" in latex
    assert "RAG & 50.0$^{*}$ {\\scriptsize [23.7, 76.3]} &" in latex
    assert "questions, \\%. Bold: best" in latex


def test_json(searchr1: Any, folders: list[Path], tmp_path: Path) -> None:
    printed = searchr1("leaderboard", *folders, "--json")
    document = json.loads(printed.stdout)
    assert [entry["name"] for entry in document["entries"]] == ["RAG", "GRPO"]
    assert document["entries"][1]["cells"]["average"]["best"]
    assert json.loads(searchr1("leaderboard", *folders, "--format", "json").stdout) == document
    out = tmp_path / "board.json"
    assert searchr1("leaderboard", *folders, "--out", out).stderr == f"written: {out}\n"
    assert json.loads(out.read_text()) == document
    cover = json.loads(searchr1("leaderboard", *folders, "--metric", "cover_match", "--json").stdout)
    assert cover["metric"] == "cover_match"


def test_the_page(searchr1: Any, folders: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "board.html"
    result = searchr1("leaderboard", *folders, "--out", out)
    assert (result.exit_code, result.stdout) == (0, "")
    page = Page(out.read_text(encoding="utf-8"))
    assert "default-src 'none'; style-src 'unsafe-inline'" in " ".join(page.values)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not [value for value in page.values if "://" in value or value.startswith("//")]
    assert page.tags.count("svg") == 1 + 3 + 1  # the brand, a plot for every column, accuracy against searches
    assert "url(" not in out.read_text(encoding="utf-8")
    for word in ("RAG", "GRPO", "90.0", "59.6–98.2", "Bamboogle"):
        assert word in page.text


@pytest.mark.parametrize("form", ["terminal", "markdown", "json", "latex", "html"])
def test_hostile_names_stay_text(searchr1: Any, tmp_path: Path, form: str) -> None:
    a = write(tmp_path / "a", {HOSTILE: [1, 0]}, settings(HOSTILE))
    b = write(tmp_path / "b", {HOSTILE: [1, 0], "nq": [1]}, settings("b", agent=HOSTILE))
    out = tmp_path / "out"
    printed = searchr1("leaderboard", a, b, "--format", form)
    assert printed.exit_code == 0, printed.stderr
    assert searchr1("leaderboard", a, b, "--format", form, "--out", out).exit_code == 0
    for text in (printed.stdout, out.read_text(encoding="utf-8")):
        if form == "html":
            page = Page(text)
            assert "script" not in page.tags
            assert page.text.count("<script>alert(1)</script>") >= 4
        elif form == "markdown":
            assert "<script" not in text
            rows = [line for line in text.splitlines() if line.startswith("| ")]
            assert {line.replace("\\|", "").count("|") for line in rows[:4]} == {5}
        elif form == "latex":
            assert "\\input" not in text
            assert "\\textbackslash{}input\\{x\\}\\_\\&\\%\\$\\#\\textasciitilde{}" in text
        elif form == "json":
            assert json.loads(text)["entries"][0]["name"] == HOSTILE
        else:
            assert "\x1b" not in text
            assert "\u202e" not in text


def test_failures_are_shown(searchr1: Any, tmp_path: Path) -> None:
    a = write(tmp_path / "a", [1, None, 0], settings("A"))
    result = searchr1("leaderboard", a)
    assert "1 !" in result.stdout
    assert "A: 1 of 3 answers (33.3%) failed" in result.stdout


def test_refusals(searchr1: Any, tmp_path: Path, folders: list[Path]) -> None:
    twin = write(tmp_path / "c", [1], settings("RAG", agent="rag", top_k=5))
    for arguments, message in (
        ([tmp_path], "expected an evaluation folder"),
        ([folders[0], twin], "both are named 'RAG', but they differ in top_k (3 and 5)"),
        ([folders[0], "--group", "nonsense"], "--group nonsense: there is no such setting"),
    ):
        result = searchr1("leaderboard", *arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert message in " ".join(result.stderr.split())
        assert result.stderr.count("\n") == 1


def test_a_name_in_brackets_is_no_argument_of_latex(searchr1: Any, tmp_path: Path) -> None:
    """``\\\\`` takes a star and a bracket after it, also on the next line, for its own."""
    scores = {"nq": [1.0, 0.0, 1.0]}
    made = [write(tmp_path / str(n), scores, settings(name)) for n, name in enumerate(("A", "[ours]", "*B"))]
    latex = searchr1("leaderboard", *made, "--format", "latex").stdout
    assert "\\\\\n{}[ours] & " in latex
    assert "\\\\\n{}*B & " in latex
    assert "\\midrule\nA & " in latex
