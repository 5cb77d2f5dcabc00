"""Rewards of the user's own: found, called, kept in the settings, and blamed by name."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
from reward_dialogues import OTHER, decode, played

from searchr1.config import build_recipe, load_recipe
from searchr1.errors import UserError
from searchr1.rewards import WeightedReward, build_reward


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_rewards.py"
    path.write_text(
        textwrap.dedent(
            """\
            def searches(trajectory, group, *, factor=1.0):
                return factor * trajectory.searches

            def place(trajectory, group):
                return group.index(trajectory)

            def several(trajectory, group):
                return trajectory.searches > 1

            def text(trajectory, group):
                return "good"

            def nothing(trajectory, group):
                pass

            def infinite(trajectory, group):
                return float("inf")

            def broken(trajectory, group):
                return 1 / 0

            def alone(trajectory):
                return 1.0

            async def later(trajectory, group):
                return 1.0

            def greedy(trajectory, group):
                group.remove(trajectory)
                return 1.0

            from builtins import max as unknown

            LIMIT = 3
            """
        )
    )
    return path


def reward_of(value: Any) -> WeightedReward:
    reward = build_reward({"exact_match": 1.0, "mine": value}, decode=decode)
    reward.load_functions()
    return reward


def test_it_is_one_part_of_the_sum(file: Path) -> None:
    scored = reward_of({"function": f"{file}:searches", "weight": 0.5, "factor": -0.1}).score_group(
        [played("x", [], [])]
    )
    assert scored[0].components["mine"] == -0.2
    assert scored[0].reward == -0.1


def test_it_sees_the_group_and_may_answer_any_number(file: Path) -> None:
    group = [played("Asimov"), played("Frank Herbert", [OTHER], [OTHER])]
    assert [item.reward for item in reward_of(f"{file}:place").score_group(group)] == [0.0, 2.0]
    values = [item.components["mine"] for item in reward_of(f"{file}:several").score_group(group)]
    assert values == [0.0, 1.0]
    assert all(type(value) is float for value in values)


def test_it_cannot_take_anything_from_the_group(file: Path) -> None:
    group = [played("Asimov"), played("Frank Herbert"), played("nobody")]
    with pytest.raises(AttributeError) as caught:
        reward_of(f"{file}:greedy").score_group(group)
    assert "in reward.mine" in caught.value.__notes__[0]
    assert len(group) == 3


def test_a_function_that_does_not_say_what_it_takes_is_called(file: Path) -> None:
    """Some of those written in C do not; what is wrong with the call shows then."""
    with pytest.raises(TypeError) as caught:
        reward_of(f"{file}:unknown").score_group([played()])
    assert "in reward.mine" in caught.value.__notes__[0]


def test_it_may_have_a_schedule(file: Path) -> None:
    reward = reward_of({"function": f"{file}:searches", "weight": {"0": 0.0, "10": 1.0}})
    assert [reward.score_group([played("x", [])], step=step)[0].reward for step in (0, 5, 10)] == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        ("missing", {}, "reward.mine: there is no function 'missing' in .*my_rewards.py"),
        ("serches", {}, "did you mean 'searches'?"),
        ("LIMIT", {}, "there is no function 'LIMIT'"),
        ("searches", {"facto": 2}, r"is called as searches\(trajectory, group, facto=2\), but it takes \(trajectory"),
        ("alone", {}, r"is called as alone\(trajectory, group\), but it takes \(trajectory\)"),
        ("later", {}, "to be a plain function, it is async"),
    ],
)
def test_what_is_refused_before_anything_is_played(
    file: Path, function: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        reward_of({"function": f"{file}:{function}", **options})


@pytest.mark.parametrize(("function", "got"), [("text", "'good'"), ("nothing", "None"), ("infinite", "inf")])
def test_an_answer_that_is_no_finite_number(file: Path, function: str, got: str) -> None:
    reward = reward_of(f"{file}:{function}")
    with pytest.raises(
        UserError, match=rf"reward.mine: expected .*:{function} to return a finite number, got {got} for"
    ):
        reward.score_group([played()])


@pytest.mark.parametrize(
    "source", ["rewards.txt:f", "rewards.py", "rewards.py:", "rewards.py:a-b", ":f", 7, ["a.py:f"]]
)
def test_what_is_no_reference(source: Any) -> None:
    with pytest.raises(UserError, match=r"expected a function as path\.py:function"):
        build_reward({"mine": {"function": source}})


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected a Python file, found none at .*nowhere\.py; check the path"):
        reward_of(f"{tmp_path}/nowhere.py:f")


@pytest.mark.parametrize("name", ["f1", "search_r1_format"])
def test_built_in_names_are_taken(name: str, file: Path) -> None:
    with pytest.raises(UserError, match=f"reward.{name}: '{name}' is built in; give your function .* another one"):
        build_reward({name: f"{file}:searches"}, decode=decode)


def test_a_name_is_a_word() -> None:
    with pytest.raises(UserError, match="'my reward' is no name"):
        build_reward({"my reward": "a.py:f"})


def test_errors_of_the_users_code_keep_type_and_traceback_and_name_the_file(file: Path) -> None:
    reward = reward_of(f"{file}:broken")
    with pytest.raises(ZeroDivisionError) as caught:
        reward.score_group([played()])
    assert caught.value.__notes__ == [f"in reward.mine ({file}:broken), question 'q'"]
    assert str(file) in {str(entry.path) for entry in caught.traceback}
    bad = file.with_name("bad.py")
    bad.write_text("import no_such_module_anywhere\n")
    with pytest.raises(ModuleNotFoundError) as unloaded:
        reward_of(f"{bad}:f")
    assert unloaded.value.__notes__ == [f"while loading {bad} for reward.mine"]


def test_two_files_of_one_name_are_two(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "r.py").write_text(f"def f(trajectory, group):\n    return {number}\n")
    table = {f"mine{number}": f"{tmp_path}/{number}/r.py:f" for number in (1, 2)}
    components = build_reward(table).score_group([played()])[0].components
    assert (components["mine1"], components["mine2"]) == (1.0, 2.0)


def test_a_recipe_keeps_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    settings = ["reward.mine=my_rewards.py:searches", "reward.mine.factor=2.0", "reward.mine.weight={0=1.0, 9=0.1}"]
    recipe = load_recipe("atlas", settings)
    kept = {"function": "my_rewards.py:searches", "factor": 2.0, "weight": {"0": 1.0, "9": 0.1}}
    assert recipe.reward["mine"] == kept
    saved = json.loads(json.dumps(recipe.resolved()))
    assert saved["reward"]["mine"] == kept
    assert build_recipe(saved).resolved() == recipe.resolved()
    whole = 'reward.mine={function="my_rewards.py:searches", factor=2.0, weight=[[0, 1.0], [9, 0.1]]}'
    table = load_recipe("atlas", [whole]).reward
    assert build_reward(table).parts[1].weight == build_reward(recipe.reward).parts[1].weight


def test_training_refuses_it_at_once_and_a_finished_run_can_be_read_without_it(tmp_path: Path) -> None:
    settings = [f"reward.mine={tmp_path}/gone.py:f"]
    with pytest.raises(UserError, match=r"found none at .*gone\.py"):
        load_recipe("atlas", settings)
    assert build_recipe({}, settings).reward["mine"].endswith("gone.py:f")
