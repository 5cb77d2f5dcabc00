"""What a study's file may say, and that those that ship can be run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_runs import small_study, study_file

from searchr1.errors import UserError
from searchr1.studies.definition import (
    SHORT,
    Expectation,
    built_in_studies,
    load_study,
    parse_study,
)
from searchr1.studies.plan import plan


def test_the_studies_that_ship() -> None:
    assert {"algorithms", "engines", "format", "groups", "mask", "r1", "staleness", "topk"} <= set(built_in_studies())


@pytest.mark.parametrize("name", built_in_studies())
def test_every_variant_of_every_study_is_a_recipe(name: str, tmp_path: Path) -> None:
    study = load_study(name)
    jobs = plan(study, tmp_path, list(study.variants), [5], threads=1)
    assert [job.variant for job in jobs] == list(study.variants)
    steps = 100 if name == "collapse" else 25
    assert all((job.recipe.seed, job.recipe.steps, job.recipe.engine.threads) == (5, steps, 1) for job in jobs)
    resolved = [json.dumps(job.recipe.resolved()) for job in jobs]
    assert len(set(resolved)) == len(jobs), "two variants are the same"
    assert study.expectations
    assert study.finding
    assert study.source.startswith("arXiv ")


def test_groups_play_the_same_number_of_trajectories(tmp_path: Path) -> None:
    jobs = plan(load_study("groups"), tmp_path, ["one", "three", "five"], [0], threads=1)
    assert {job.recipe.rollout.questions * job.recipe.rollout.group_size for job in jobs} == {180}


def test_five_passages_of_the_atlas_fit_the_budget(tmp_path: Path) -> None:
    from searchr1.assemble import build_dialogue, check_budget, context_length, model_path
    from searchr1.data.atlas.text import passage
    from searchr1.data.atlas.world import World

    (job,) = plan(load_study("topk"), tmp_path, ["five"], [0], threads=1)
    source = model_path("atlas-base")
    protocol = build_dialogue(job.recipe, source)[1]
    check_budget(job.recipe, protocol, [], context_length(source))
    world = World(0, 3000)
    longest = sorted((passage(world, number) for number in range(3000)), key=lambda page: len(page.text))[-5:]
    assert not protocol.observe(longest, job.recipe.rollout.observation_tokens).truncated


def test_settings_are_laid_over_each_other(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    assert study.name == "sides"
    assert study.settings("left") == {**SHORT, "steps": 4, "evaluation.every": 2, "optimizer.learning_rate": 1e-3}
    changed = study.changed({"evaluation.every": 1, "rollout.top_k": 1})
    assert changed.settings("left")["evaluation.every"] == 1
    assert changed.settings("right")["rollout.top_k"] == 1


@pytest.mark.parametrize("name", built_in_studies())
def test_a_study_comes_back_from_its_json(name: str) -> None:
    study = load_study(name)
    assert parse_study(json.loads(json.dumps(study.table())), "study.json") == study


def test_optional_variants_run_where_they_are_named(tmp_path: Path) -> None:
    study = small_study(tmp_path, head='optional = ["right"]')
    assert study.chosen() == ["left"]
    assert study.chosen(["right", "other"]) == ["right"]


@pytest.mark.parametrize(
    ("head", "tail", "message"),
    [
        ("seeds = [1, 1]", "", "expected different seeds, got [1, 1]"),
        ("seeds = []", "", "expected different seeds, got []"),
        ('seeds = ["a"]', "", "sides.toml: seeds.0: input should be a valid integer"),
        ("expectation = []", "", "unknown key 'expectation'; did you mean 'expectations'?"),
        ('optional = ["rigt"]', "", "optional: there is no variant 'rigt'; did you mean 'right'?"),
        ("", "[variants.'a b']", "'a b' is no name"),
        ("", "[variants]\nx = 3", "sides.toml: "),
        ("variants = 3", "", "sides.toml: "),
        ("shared = 3", "", "sides.toml: "),
    ],
)
def test_what_a_file_may_not_say(tmp_path: Path, head: str, tail: str, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        small_study(tmp_path, head, tail)
    assert message in str(refusal.value)


def test_expectations_name_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="of = 'exact_mach' cannot be compared; did you mean 'exact_match'"):
        Expectation("left", "right", "exact_mach")
    table: dict[str, Any] = small_study(tmp_path, tail='[evaluations]\nother = ["--retriever", "x"]').table()

    def refusal(**expectation: str) -> str:
        with pytest.raises(UserError) as refused:
            parse_study({**table, "expectations": [expectation]}, "s")
        return str(refused.value)

    assert "there is no variant 'lefd'; did you mean 'left'?" in refusal(higher="lefd", lower="right")
    assert "left@othr has no exact_match; did you mean 'left@other'?" in refusal(higher="left@othr", lower="right")
    assert "left@other has no area" in refusal(higher="left@other", lower="right", of="area")
    parse_study({**table, "expectations": [{"higher": "left@before", "lower": "right"}]}, "s")
    with pytest.raises(UserError, match="evaluations: 'before' is the one before training; use another name"):
        parse_study({**table, "evaluations": {"before": []}}, "s")
    parse_study({**table, "expectations": [{"higher": "left@other", "lower": "right", "of": "searches"}]}, "s")


def test_what_the_variants_vary_is_not_set_for_all(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    message = "--set optimizer.learning_rate: study sides varies it (optimizer.learning_rate of left); choose variants"
    for key in ("optimizer.learning_rate", "optimizer"):
        with pytest.raises(UserError) as refusal:
            study.changed({key: 1})
        assert str(refusal.value).startswith(message.replace("optimizer.learning_rate", key, 1))
    with pytest.raises(UserError, match="--set seed: every seed of a study is a run of its own; use --seeds"):
        study.changed({"seed": 1})
    study.changed({"optimizer.learning": 1})  # not the same key, though it begins like it


def test_files_that_are_no_study(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"study maks: no such study and no such \.toml file; did you mean 'mask'\?"):
        load_study("maks")
    with pytest.raises(UserError, match="no such study"):
        load_study(str(tmp_path))
    path = study_file(tmp_path)
    path.write_text("title = ")
    with pytest.raises(UserError, match="expected TOML"):
        load_study(str(path))
    path.write_text('title = "x"')
    with pytest.raises(UserError, match=r"sides\.toml: source: field required"):
        load_study(str(path))
