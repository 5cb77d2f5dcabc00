"""The training loop pays rewards as they are at its step, and a run with a function of the user's goes on with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from searchr1.assemble import build_parts
from searchr1.config import load_recipe
from searchr1.run import RunFolder
from searchr1.train import Trainer
from searchr1.waiting import Silent

SMALL = ["data.atlas_entities=300", "rollout.questions=2", "rollout.group_size=2", "evaluation.final_questions=2",
         "evaluation.every=0", "evaluation.baselines=[]", 'evaluation.decodings=["sampled"]', "save.checkpoint_every=1",
         "engine.threads=1"]  # fmt: skip
MINE = ["reward.exact_match=0", "reward.mine=constant.py:constant", "reward.mine.weight={1=1.0, 3=0.5}",
        "reward.new_evidence={redundancy=0}"]  # fmt: skip


async def train(steps: int, *, resume: bool) -> RunFolder:
    recipe = load_recipe("atlas", [*SMALL, *MINE, f"steps={steps}"])
    settings = recipe.resolved()
    run = RunFolder.resume("run", settings, free=frozenset({"steps"})) if resume else RunFolder.create("run", settings)
    with run:
        await Trainer(recipe, build_parts(recipe, run.path), run, Silent()).train()
    return RunFolder.open("run")


async def test_weights_follow_the_step_also_across_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("constant.py").write_text("def constant(trajectory, group):\n    return 4.0\n")
    await train(2, resume=False)
    rows = (await train(3, resume=True)).read_metrics()
    assert [row["train/mine"] for row in rows] == [4.0] * 3
    found = [row["train/reward"] - row["train/new_evidence"] for row in rows]
    assert found == pytest.approx([4.0, 3.0, 2.0])
