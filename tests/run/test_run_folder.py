"""The run folder: what was written comes back, a kill costs a torn line at most, and errors name the place."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from searchr1.errors import UserError
from searchr1.run import RunFolder

CONFIG = {"seed": 0, "steps": 4, "data": {"train": "atlas"}, "rollout": {"max_searches": 4, "stops": ("</search>",)}}


def metrics(step: int) -> dict[str, object]:
    return {"step": step, "train/reward": step / 10, "train/kl": 0.1 + 0.2}


def trajectories(step: int) -> list[dict[str, object]]:
    return [{"kind": "train", "step": step, "answer": "\u2028 \ud83d</script>", "reward": 1 / 3}]


def do_step(run: RunFolder, step: int) -> None:
    run.append_metrics(metrics(step))
    run.append_eval({"step": step, "agent": "search_r1", "dataset": "all", "exact_match": step / 4})
    run.write_trajectories(step, trajectories(step))


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def test_rows_come_back_as_written(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", CONFIG) as run:
        do_step(run, 1)
        do_step(run, 2)
    run = RunFolder.open(tmp_path / "run")
    assert run.config == {**CONFIG, "rollout": {"max_searches": 4, "stops": ["</search>"]}}
    assert run.read_metrics() == [metrics(1), metrics(2)]
    assert [row["exact_match"] for row in run.read_eval()] == [0.25, 0.5]
    assert run.trajectory_steps() == [1, 2]
    assert run.read_trajectories(2) == trajectories(2)
    assert run.checkpoints == tmp_path / "run" / "checkpoints"


def test_every_file_carries_its_format_and_version(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, CONFIG) as run:
        do_step(run, 1)
    document = json.loads((tmp_path / "config.json").read_text())
    assert (document["format"], document["version"]) == ("searchr1-run", 1)
    first = {
        "searchr1-metrics": (tmp_path / "metrics.jsonl").read_bytes(),
        "searchr1-eval": (tmp_path / "eval.jsonl").read_bytes(),
        "searchr1-trajectories": gzip.decompress((tmp_path / "trajectories/step-1.jsonl.gz").read_bytes()),
    }
    for name, data in first.items():
        assert json.loads(data.split(b"\n")[0]) == {"format": name, "version": 1}


def test_a_fresh_run_reads_as_empty(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, CONFIG).close()
    run = RunFolder.open(tmp_path)
    assert (run.read_metrics(), run.read_eval(), run.trajectory_steps()) == ([], [], [])


def test_numbers_that_json_cannot_hold_become_null_in_metrics_and_fail_in_trajectories(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, CONFIG) as run:
        run.append_metrics({"step": 1, "train/kl": float("nan"), "train/grad_norm": float("inf")})
        assert run.read_metrics() == [{"step": 1, "train/kl": None, "train/grad_norm": None}]
        with pytest.raises(ValueError, match="JSON compliant"):
            run.write_trajectories(1, [{"step": 1, "reward": float("nan")}])
        assert run.trajectory_steps() == []  # nothing half-written takes the name


def test_the_same_trajectories_give_the_same_bytes(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, CONFIG) as run:
        first = run.write_trajectories(3, trajectories(3)).read_bytes()
        assert run.write_trajectories(3, trajectories(3)).read_bytes() == first
    assert first[4:8] == bytes(4)  # no time of writing in the gzip header


def test_create_refuses_a_run_and_a_folder_with_other_files(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", CONFIG) as run:
        do_step(run, 1)
    with pytest.raises(UserError, match=r"already holds a run of 1 steps; use another --out, or --resume"):
        RunFolder.create(tmp_path / "run", CONFIG)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"expected an empty folder, found thesis\.tex; use another --out"):
        RunFolder.create(tmp_path / "mine", CONFIG)
    assert list(contents(tmp_path / "mine")) == ["thesis.tex"]
    with pytest.raises(UserError, match="found a file"):
        RunFolder.create(tmp_path / "mine" / "thesis.tex", CONFIG)


def test_create_takes_over_what_a_kill_inside_create_left(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / "config.json.tmp").write_text('{"format"')
    RunFolder.create(tmp_path, CONFIG).close()
    assert sorted(contents(tmp_path)) == [".lock", "config.json"]


def test_open_and_resume_need_a_run(tmp_path: Path) -> None:
    for attempt in (lambda: RunFolder.open(tmp_path), lambda: RunFolder.resume(tmp_path, CONFIG)):
        with pytest.raises(UserError, match=r"expected a run folder, found no config\.json"):
            attempt()
    assert contents(tmp_path) == {}


def test_resume_names_the_changed_keys(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, CONFIG).close()
    changed = {**CONFIG, "seed": 1, "steps": 9, "rollout": {"max_searches": 2, "stops": ["</search>"]}, "new": True}
    with pytest.raises(UserError) as error:
        RunFolder.resume(tmp_path, changed, free=frozenset({"steps"}))
    assert "changed: new (unset -> true), rollout.max_searches (4 -> 2), seed (0 -> 1);" in str(error.value)
    RunFolder.resume(tmp_path, CONFIG).close()  # the failed attempt let go of the lock and changed nothing


def test_free_keys_and_free_tables_may_change_and_are_saved(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, CONFIG).close()
    changed = {**CONFIG, "steps": 9, "data": {"train": "nq"}}
    RunFolder.resume(tmp_path, changed, free=frozenset({"steps", "data"})).close()
    assert RunFolder.open(tmp_path).config["steps"] == 9
    assert RunFolder.open(tmp_path).config["data"] == {"train": "nq"}


@pytest.mark.parametrize("torn", [b"", b'{"step":4,"train/rew', b'{"step":4}', b"\x00" * 512])
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, torn: bytes) -> None:
    with RunFolder.create(tmp_path / "whole", CONFIG) as run:
        for step in range(1, 6):
            do_step(run, step)
    with RunFolder.create(tmp_path / "killed", CONFIG) as run:
        for step in range(1, 4):  # killed in step 4; the last checkpoint is step 2
            do_step(run, step)
    for name in ("metrics.jsonl", "eval.jsonl"):
        with (tmp_path / "killed" / name).open("ab") as file:
            file.write(torn)
    (tmp_path / "killed" / "trajectories" / "step-4.jsonl.gz.tmp").write_bytes(b"\x1f\x8b")
    with RunFolder.resume(tmp_path / "killed", CONFIG) as run:
        run.rewind(2)
        assert [row["step"] for row in run.read_metrics()] == [1, 2]
        assert run.trajectory_steps() == [1, 2]
        for step in range(3, 6):
            do_step(run, step)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_rewind_before_the_first_row_leaves_a_fresh_run(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, CONFIG) as run:
        fresh = contents(tmp_path)
        do_step(run, 0)
        (tmp_path / "metrics.jsonl").write_bytes(b'{"format":"searchr1-met')  # killed inside the header
        run.rewind(-1)
        assert contents(tmp_path) == fresh


def test_a_torn_last_line_is_no_row_for_readers(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, CONFIG) as run:
        do_step(run, 1)
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    run = RunFolder.open(tmp_path)
    for cut in range(len(whole)):
        (tmp_path / "metrics.jsonl").write_bytes(whole[:cut])
        assert run.read_metrics() == []
    (tmp_path / "metrics.jsonl").write_bytes(whole + b'{"step":2')
    assert run.read_metrics() == [metrics(1)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{oops", r"metrics\.jsonl, line 3: not valid JSON"),
        (b"\xff\xfe", r"metrics\.jsonl, line 3: not valid JSON"),
        (b"[1]", r"metrics\.jsonl, line 3: expected a JSON object, got list"),
        (b'{"train/kl": 1}', r"metrics\.jsonl, line 3: expected a row with a whole number 'step', got None"),
    ],
)
def test_a_corrupt_row_is_named_by_file_and_line(tmp_path: Path, line: bytes, message: str) -> None:
    with RunFolder.create(tmp_path, CONFIG) as run:
        run.append_metrics(metrics(1))
        with (tmp_path / "metrics.jsonl").open("ab") as file:
            file.write(line + b"\n")
        run.append_metrics(metrics(2))
        with pytest.raises(UserError, match=message):
            run.read_metrics()
        with pytest.raises(UserError, match=message):
            run.rewind(1)


def test_damaged_trajectories_are_named_by_file_and_line(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, CONFIG) as run:
        path = run.write_trajectories(1, trajectories(1))
    data = path.read_bytes()
    for damaged in (data[:-9], b"plain text", data[:40] + b"\xff" * 8 + data[48:]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"step-1\.jsonl\.gz, line \d+: damaged gzip data"):
            run.read_trajectories(1)
    with pytest.raises(UserError, match=r"no trajectories of step 7; there are: \[1\]"):
        run.read_trajectories(7)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ('{"format":"searchr1-metrics","version":2}', "format version 2 is newer than 1, the newest known; upgrade"),
        ('{"format":"searchr1-eval","version":1}', "expected the format 'searchr1-metrics', got 'searchr1-eval'"),
        ('{"format":"searchr1-metrics"}', "expected a format version, got None"),
    ],
)
def test_a_foreign_or_newer_file_is_refused(tmp_path: Path, header: str, message: str) -> None:
    RunFolder.create(tmp_path, CONFIG).close()
    (tmp_path / "metrics.jsonl").write_text(header + "\n")
    with pytest.raises(UserError, match=message):
        RunFolder.open(tmp_path).read_metrics()


def test_a_newer_run_is_refused(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, CONFIG).close()
    (tmp_path / "config.json").write_text('{"format": "searchr1-run", "version": 2, "config": {}}')
    with pytest.raises(UserError, match="newer than 1"):
        RunFolder.open(tmp_path)


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, CONFIG).close()
    reader = RunFolder.open(tmp_path)
    for write in (lambda: reader.append_metrics(metrics(1)), lambda: reader.rewind(0)):
        with pytest.raises(RuntimeError, match="open for reading only"):
            write()


def test_one_writer_at_a_time_also_across_processes(tmp_path: Path) -> None:
    attempt = f"from searchr1.run import RunFolder; RunFolder.resume({str(tmp_path)!r}, {CONFIG!r}).close()"
    with RunFolder.create(tmp_path, CONFIG):
        with pytest.raises(UserError, match="another process is writing this run"):
            RunFolder.resume(tmp_path, CONFIG)
        other = subprocess.run([sys.executable, "-c", attempt], capture_output=True, text=True, check=False)
        assert "another process is writing this run" in other.stderr
    subprocess.run([sys.executable, "-c", attempt], check=True)
