"""A judge's verdicts: asked once, kept as they were, counted apart from what failed."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from evaluation_parts import question, rows_of, trajectory

from searchr1.errors import EngineError, UserError
from searchr1.evaluation.folder import EvaluationFolder
from searchr1.evaluation.judge import IN_A_ROW, PROMPT, judge, verdict


@dataclass
class Reply:
    text: str


@dataclass
class Rules:
    """Says what the table says of the answer in the prompt; an exception is raised."""

    table: dict[str, str | Exception]
    model: str = "judge-1"
    asked: list[str] = field(default_factory=list)

    async def chat(self, messages: Any, **options: Any) -> Reply:
        [message] = messages
        assert (message["role"], options) == ("user", {"temperature": 0.0})
        prompt = message["content"]
        self.asked.append(prompt)
        said = next(value for key, value in self.table.items() if f"Given answer: {key}\n" in prompt)
        if isinstance(said, Exception):
            raise said
        return Reply(said)


ANSWERS = ("red fox", "a fox that is red", "dog", None, "odd", "lost")
RULES: dict[str, str | Exception] = {
    "red fox": "incorrect",
    "a fox that is red": "<think> incorrect? no </think> Correct.",
    "dog": "Incorrect.",
    "odd": "who knows",
    "lost": EngineError("down"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = rows_of([trajectory(question(str(n)), answer) for n, answer in enumerate(ANSWERS)])
    with EvaluationFolder.begin(tmp_path / "out", {"name": "demo"}) as made:
        for row in rows:
            made.append(row)
        made.finish()
    return tmp_path / "out"


async def test_verdicts_are_counted_and_kept(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    rules = Rules(RULES)
    result = await judge(folder, rules, progress=lambda done, total: told.append((done, total)))
    figures = dict(result["datasets"]["demo"])
    low, high = figures.pop("ci_low"), figures.pop("ci_high")
    assert figures == {
        "n": 4, "correct": 0.25, "unclear": 1, "failed": 1, "both": 0, "judge_only": 1, "match_only": 1,
    }  # fmt: skip
    assert 0 < low < 0.25 < high < 1
    assert told[-1] == (6, 6)
    assert json.loads((folder / "judge.json").read_text()) == result
    rows = {
        row["id"]: row for line in (folder / "judgements.jsonl").read_text().splitlines() for row in [json.loads(line)]
    }
    assert rows["1"]["prompt"] == PROMPT.format(
        question="What is 1?", answers="red fox", prediction="a fox that is red"
    )
    assert (rows["1"]["reply"], rows["1"]["correct"]) == (RULES["a fox that is red"], True)
    assert (rows["3"]["prompt"], rows["3"]["correct"]) == (None, False)
    assert (rows["5"]["error"], rows["5"]["correct"]) == ("down", None)
    assert len(rules.asked) == 5


async def test_only_what_is_missing_is_asked_again(folder: Path) -> None:
    await judge(folder, Rules(RULES))
    with (folder / "judgements.jsonl").open("ab") as stream:
        stream.write(b'{"torn')
    mended = Rules({**RULES, "lost": "correct"})
    result = await judge(folder, mended)
    assert [prompt.split("Given answer: ")[1].split("\n")[0] for prompt in mended.asked] == ["lost"]
    assert (result["datasets"]["demo"]["n"], result["datasets"]["demo"]["failed"]) == (5, 0)
    other = Rules({**RULES, "lost": "correct"}, model="judge-2")
    await judge(folder, other)
    assert len(other.asked) == 5
    assert len((folder / "judgements.jsonl").read_text().splitlines()) == 6 + 1 + 6


async def test_a_server_that_refuses_ends_it_and_what_was_judged_is_kept(folder: Path) -> None:
    with pytest.raises(UserError, match="bad key"):
        await judge(folder, Rules({**RULES, "odd": UserError("bad key")}), concurrency=1)
    assert len((folder / "judgements.jsonl").read_text().splitlines()) == 4
    assert not (folder / "judge.json").exists()


async def test_it_gives_up_when_the_judge_is_down(tmp_path: Path) -> None:
    rows = rows_of([trajectory(question(str(n)), "dog" if n == 3 else "lost") for n in range(2 * IN_A_ROW)])
    with EvaluationFolder.begin(tmp_path / "out", {"name": "demo"}) as made:
        for row in rows:
            made.append(row)
        made.finish()
    rules = Rules(RULES)
    with pytest.raises(EngineError, match=f"^{IN_A_ROW} requests in a row failed: down; the same command goes on"):
        await judge(tmp_path / "out", rules, concurrency=1)
    assert len(rules.asked) == 4 + IN_A_ROW
    assert (await judge(tmp_path / "out", Rules({"lost": "correct"})))["datasets"]["demo"]["n"] == 2 * IN_A_ROW


async def test_folders_that_cannot_be_judged(folder: Path) -> None:
    with pytest.raises(UserError, match="expected an evaluation folder"):
        await judge(folder / "nowhere", Rules({}))
    (folder / "judgements.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"judgements\.jsonl:1: expected a judgement"):
        await judge(folder, Rules(RULES))


async def test_a_folder_is_judged_by_one_at_a_time_and_not_while_it_is_written(folder: Path) -> None:
    with EvaluationFolder.resume(folder, {"name": "demo"}) as writing:
        writing.finish()
        with pytest.raises(UserError, match="another process is writing it"):
            await judge(folder, Rules(RULES))
    assert not (folder / "judgements.jsonl").exists()
    assert (await judge(folder, Rules(RULES)))["datasets"]["demo"]["n"] == 4


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("correct", True),
        ("INCORRECT!", False),
        ("not correct, incorrect", None),
        ("", None),
        ("incorrectly", None),
        ("not correct", None),
        ("It is not entirely correct.", None),
        ("That isn't correct.", None),
        ("not incorrect", None),
        ("correct? no. </think> incorrect", False),
        ("<think> is it correct", None),
        ("The answer is correct, not a guess.", True),
    ],
)
def test_what_a_reply_says(reply: str, expected: bool | None) -> None:
    assert verdict(reply) is expected
