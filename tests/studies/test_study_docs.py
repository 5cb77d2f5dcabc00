"""The page on studies names every study, and the example in it is one."""

from __future__ import annotations

import re
from pathlib import Path

from searchr1.studies.definition import built_in_studies, load_study
from searchr1.studies.plan import plan

PAGE = (Path(__file__).parents[2] / "docs" / "studies.md").read_text(encoding="utf-8")


def test_every_study_has_its_place() -> None:
    assert sorted(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == built_in_studies()


def test_the_command_for_all_is_for_all() -> None:
    (command,) = re.findall(r"^searchr1 study (.*) --out runs/studies$", PAGE.split("unattended")[1], re.MULTILINE)
    assert sorted(command.split()) == built_in_studies()


def test_the_example_can_be_run(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "mine.toml"
    path.write_text(text)
    study = load_study(str(path))
    jobs = plan(study, tmp_path / "out", list(study.variants), study.seeds, threads=1)
    assert [job.name for job in jobs[:2]] == ["mine/cool/seed-0", "mine/hot/seed-0"]
    assert jobs[1].prepare[0][-2:] == ("--out", f"{jobs[1].prepared}/kept.jsonl.gz")
