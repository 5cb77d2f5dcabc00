"""The report: complete, safe against what models and corpora write, sensible at every moment of a run."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from synthetic_run import Player, config, eval_rows, make_run, question

from searchr1.errors import UserError
from searchr1.report import write_report
from searchr1.report.build import embedded_json, series
from searchr1.report.summary import alarms, flat, headline, table
from searchr1.report.trajectories import MAX_TRAJECTORIES, Drawn, collect_trajectories
from searchr1.run import RunFolder
from searchr1.trajectory_io import trajectory_row
from searchr1.types import (
    Answer,
    Passage,
    Question,
    Scored,
    Search,
    SearchOutcome,
    Segment,
    Source,
    StopReason,
    Trajectory,
    Turn,
)

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;\u2028\u2029😀<!--\ud800"


class Page(HTMLParser):
    """What a browser would see: scripts and styles apart from the text, and every attribute."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text, self.tags, self.attributes, self._inside = "", [], [], ""
        self.feed(path.read_text(encoding="utf-8"))
        self.data = json.loads(next(text for attributes, text in self.scripts if attributes.get("id") == "data"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._inside = tag if tag in ("script", "style") else ""
        self.text += " "
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif not self._inside:
            self.text += data

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("runs") / "atlas", steps=20, questions=6)


@pytest.fixture(scope="module")
def page(run: RunFolder) -> Page:
    return Page(write_report(run.path))


def test_the_page_is_written_into_the_run_or_where_asked(run: RunFolder, tmp_path: Path) -> None:
    assert write_report(run.path) == run.path / "report.html"
    assert write_report(str(run.path), tmp_path / "new" / "page.html") == tmp_path / "new" / "page.html"
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["page.html"]


def test_the_head_names_the_run(page: Page) -> None:
    assert page.words.startswith("atlas – searchr1 report")
    for fact in ("Model atlas-tiny", "Algorithm grpo", "Steps 20 of 20", "Seed 17", "atlas finished"):
        assert fact in page.words


def test_the_cards_show_before_and_after_with_intervals(page: Page) -> None:
    assert "Exact match all questions, sampled 16.3% → 83.7%" in page.words
    assert "Before training 13.0–19.6 → step 20 80.4–87.0, 95% interval, 480 questions." in page.words
    assert "Greedy: 16.3% → 85.7% 82.6–88.8" in page.words
    assert "Search-R1 greedy 85.7%" in page.words  # beside baselines of the same decoding
    assert "RAG greedy 32.5%" in page.words
    assert "Direct answer greedy 13.8%" in page.words
    assert "one-hop 0.30 0.99 two-hop 0.60 1.97 comparison 0.60 1.97" in page.words


def test_the_page_loads_nothing(page: Page) -> None:
    links = [value for name, value in page.attributes if name in ("src", "href", "srcset", "action", "poster")]
    assert links
    assert all(link.startswith("#") for link in links if link)
    assert not {"link", "iframe", "object", "embed", "img", "form"} & set(page.tags)
    style = "".join(re.findall(r"<style>(.*?)</style>", (page.rawdata or ""), re.DOTALL))
    assert "url(" not in style
    assert "@import" not in style


def test_only_our_script_may_run(page: Page) -> None:
    policy = next(value for _, value in page.attributes if value and "script-src" in value)
    (_, script) = page.scripts[-1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'")
    assert f"script-src 'sha256-{digest}';" in policy
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "</script"):
        assert sink not in script


def test_embedded_json_cannot_leave_its_element() -> None:
    text = str(embedded_json({HOSTILE: [HOSTILE]}))
    assert not set("<>&\u2028\u2029") & set(text)
    assert text.isascii()
    assert json.loads(text) == {HOSTILE: [HOSTILE]}
    with pytest.raises(ValueError, match="JSON compliant"):
        embedded_json(float("nan"))


def hostile_scored() -> Scored:
    tokenizer = Player(0).tokenizer
    trajectory = Trajectory(
        Question(HOSTILE, HOSTILE, (HOSTILE,), HOSTILE, {HOSTILE: HOSTILE}),
        (
            Segment(Source.PROMPT, tuple(tokenizer.encode(HOSTILE))),
            Segment(Source.POLICY, (1, 2, 3), (-0.1, -0.2, -9.0)),
            Segment(Source.ENVIRONMENT, (4,)),
        ),
        (
            Turn(Search(HOSTILE), (Passage(HOSTILE, HOSTILE, HOSTILE, 1.0),), SearchOutcome.FOUND),
            Turn(Answer(HOSTILE)),
        ),
        HOSTILE,
        StopReason.ANSWERED,
        0,
        0,
    )
    return Scored(trajectory, 1.0, {"exact_match": 1.0, HOSTILE: 1.0})


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    tokenizer = Player(0).tokenizer
    tokenizer.encode(HOSTILE)
    row = trajectory_row(hostile_scored(), kind="eval", step=0, tokenizer=tokenizer, advantage=None, group=HOSTILE)
    with RunFolder.create(
        tmp_path / "a<b>&'\"", {**config(1), "model": HOSTILE, HOSTILE.replace("\ud800", ""): 1}
    ) as run:
        run.append_metrics({"step": 1, f"stop/{HOSTILE}": 0.5, "train/reward": 0.5})
        for part in ("agent", "decoding", "dataset"):
            evaluated: dict[str, Any] = {"step": 0, "agent": "search_r1", "decoding": "sampled", "dataset": "all"}
            run.append_eval({**evaluated, part: HOSTILE, "exact_match": 0.5})
        run.write_trajectories(0, [row])
    clean, page = Page(write_report(make_run(tmp_path / "clean", steps=1).path)), Page(write_report(run.path))
    assert len(page.scripts) == len(clean.scripts) == 2
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.scripts[-1] == clean.scripts[-1]
    entry = page.data["trajectories"]["entries"][0]
    assert entry["question"]["text"] == entry["items"][0]["answer"] == HOSTILE
    assert HOSTILE.replace("\ud800", "?").split("\u2028")[0] in page.text  # shown, as text


def test_tokens_keep_their_ids_text_and_log_probabilities(run: RunFolder, page: Page) -> None:
    packed = page.data["trajectories"]
    entry = next(entry for entry in packed["entries"] if entry["question"]["id"] == "test-1")
    assert [item["step"] for item in entry["items"]] == [0, 20]  # the same question before and after, side by side
    row = next(row for row in run.read_trajectories(20) if row["kind"] == "eval" and row["question"]["id"] == "test-1")
    for shown, written in zip(entry["items"][1]["segments"], row["segments"], strict=True):
        assert [packed["tokens"][i][0] for i in shown["tokens"]] == written["token_ids"]
        assert [packed["tokens"][i][1] for i in shown["tokens"]] == written["pieces"]
        assert shown.get("logprobs") == ([round(p, 3) for p in written["logprobs"]] if "logprobs" in written else None)
    turn = entry["items"][1]["turns"][0]
    assert turn["passages"][0] == {"id": "p1", "title": "Tarnhelm", "score": 9.41}


def test_training_groups_stay_whole(page: Page) -> None:
    groups = [entry for entry in page.data["trajectories"]["entries"] if entry["kind"] == "train"]
    assert {len(entry["items"]) for entry in groups} == {8}
    assert all(len({item["step"] for item in entry["items"]}) == 1 for entry in groups)
    assert all(abs(sum(item["advantage"] for item in entry["items"])) < 0.01 for entry in groups)


def test_what_is_left_out_is_said_and_the_file_stays_small(tmp_path: Path) -> None:
    run = make_run(tmp_path / "large", steps=24, every=2, questions=70)
    path = write_report(run.path)
    packed = Page(path).data["trajectories"]
    assert packed["shown"] == sum(len(entry["items"]) for entry in packed["entries"]) <= MAX_TRAJECTORIES
    assert path.stat().st_size < 5_000_000
    seen = sum(len(run.read_trajectories(step)) for step in (0, 1, 6, 12, 18, 24))
    assert f"Showing {packed['shown']} of the {seen} trajectories in 6 of 14 step files" in Page(path).words
    evaluated = [entry for entry in packed["entries"] if entry["kind"] == "eval"]
    assert {tuple(item["step"] for item in entry["items"]) for entry in evaluated} == {(0, 24)}
    assert any(entry["kind"] == "train" for entry in packed["entries"])


def test_long_trajectories_are_limited_by_bytes(tmp_path: Path) -> None:
    pieces = [f"w{i} " for i in range(30_000)]
    prompt = {"source": "prompt", "token_ids": list(range(30_000)), "text": "".join(pieces), "pieces": pieces}
    player = Player(0)
    small = trajectory_row(
        player.play(question(0), 1.0, 0), kind="eval", step=0, tokenizer=player.tokenizer, advantage=None, group="g"
    )
    rows = [{**small, "question": {**small["question"], "id": f"q{i}"}, "segments": [prompt]} for i in range(12)]
    with RunFolder.create(tmp_path, config(1)) as run:
        run.write_trajectories(0, rows)
        packed = collect_trajectories(run, [0])
    assert 0 < packed["shown"] < 12
    assert packed["note"].startswith(f"Showing {packed['shown']} of the 12 trajectories in 1 of 1 step files")
    assert len(embedded_json(packed)) < 3_500_000


def test_a_draw_is_the_same_in_every_order_and_keeps_groups_whole() -> None:
    offers = [(f"q{i}", {"row": j}) for i in range(40) for j in range(2)]
    forward, backward = Drawn(5), Drawn(5)
    for name, row in offers:
        forward.offer(name, row)
    for name, row in reversed(offers):
        backward.offer(name, row)
    assert forward.groups.keys() == backward.groups.keys()
    assert len(forward.groups) == 5
    assert all([row["row"] for row in rows] == [0, 1] for rows in forward.groups.values())


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ({"done": 0}, ("not trained yet", "No training step has finished yet.", "0 of 20")),
        ({"done": 1}, ("in progress", "1 of 20", "16.3%")),
        ({"done": 13}, ("in progress", "13 of 20", "→")),
        ({"questions": 0}, ("finished", "20 of 20")),
    ],
)
def test_unfinished_runs_give_a_sensible_page(tmp_path: Path, kind: dict[str, int], expected: tuple[str, ...]) -> None:
    page = Page(write_report(make_run(tmp_path / "run", **{"steps": 20, "questions": 3, **kind}).path))  # type: ignore[arg-type]
    for text in expected:
        assert text in page.words
    assert page.data["metrics"]["step"] == list(range(1, kind.get("done", 20) + 1))


def test_a_run_that_holds_nothing_yet(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "new", {}).close()
    page = Page(write_report(tmp_path / "new"))
    for text in ("No evaluation yet", "No training step has finished yet.", "No trajectories were kept yet."):
        assert text in page.words
    assert page.data == {
        "metrics": {"every": 1, "step": []},
        "evaluations": [],
        "decoding": None,
        "trajectories": {"tokens": [], "entries": [], "first": None, "last": None, "shown": 0, "note": ""},
        "alarms": [],
        "rolled_back": [],
    }


def test_gaps_and_missing_columns_do_no_harm(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, {"model": {"path": "some/model"}, "steps": 2}) as run:
        run.append_metrics({"step": 1, "train/kl": float("nan"), "note": "text"})
        run.append_metrics({"step": 2, "train/reward": 0.5})
        run.append_eval({"step": 0, "agent": "search_r1", "decoding": "greedy", "dataset": "nq", "exact_match": 0.25})
        run.append_eval({"step": 2, "agent": "new", "decoding": "greedy", "dataset": "nq", "exact_match": None})
    page = Page(write_report(tmp_path))
    assert page.data["metrics"]["train/kl"] == [None, None]
    assert page.data["metrics"]["train/reward"] == [None, 0.5]
    assert "Model some/model" in page.words
    assert "Exact match nq, greedy 25.0%" in page.words


def test_no_run_and_damaged_rows_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a run folder"):
        write_report(tmp_path)
    with RunFolder.create(tmp_path, {}) as run:
        run.write_trajectories(0, [{"step": 0, "kind": "eval", "question": {"id": "q", "dataset": "d"}}])
    with pytest.raises(UserError, match=r"trajectories: a row is not complete \(KeyError\('question'\)\)"):
        write_report(tmp_path)


def test_long_runs_are_drawn_as_means() -> None:
    drawn = series([{"step": step, "train/reward": float(step % 3)} for step in range(1, 1501)])
    assert drawn["every"] == 3
    assert drawn["step"][:2] == [3, 6]
    assert set(drawn["train/reward"]) == {1.0}
    assert len(drawn["step"]) == 500


def test_table_order_and_change() -> None:
    lines = table([*eval_rows(0, 0.0), *eval_rows(5, 0.5)])
    assert [line.name for line in lines[::4]] == ["Search-R1", "Search-R1", "RAG", "Direct answer"]
    assert [(line.decoding, line.dataset) for line in lines[:5]] == [
        ("sampled", "all"),
        ("sampled", "one-hop"),
        ("sampled", "two-hop"),
        ("sampled", "comparison"),
        ("greedy", "all"),
    ]
    assert lines[1].change == pytest.approx(0.4)  # from 0.14 towards 0.94, half way


def test_headline_without_baselines_or_the_other_decoding() -> None:
    found = headline([row for row in eval_rows(0, 0.0) if row["agent"] == "search_r1" and row["decoding"] == "greedy"])
    assert found is not None
    assert (found.decoding, found.other, found.rivals) == ("greedy", None, [])
    assert found.main.change is None
    assert headline([row for row in eval_rows(0, 0.0) if row["agent"] == "rag"]) is None


def test_failures_raise_an_alarm() -> None:
    rows = [{"step": 1, "stop/search_unavailable": 0.1}, {"step": 2, "stop/search_unavailable": 0.0}]
    assert alarms(rows) == [
        "5.0% of all training trajectories ended as search_unavailable (up to 10.0% in one step). "
        "They are left out of loss and score."
    ]
    assert alarms([{"step": 1, "stop/answered": 1.0, "stop/search_unavailable": 0.0}]) == []


def test_settings_are_flattened() -> None:
    assert list(flat({"a": {"b": 1, "c": []}, "d": "x"})) == [("a.b", "1"), ("a.c", "[]"), ("d", "x")]


def test_importing_the_report_is_cheap() -> None:
    code = "import sys, searchr1.report; print([m for m in ('jinja2', 'torch', 'searchr1.run') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
