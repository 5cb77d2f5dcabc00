from collections.abc import Mapping
from dataclasses import fields, replace
from importlib import import_module
from typing import Any

import pytest

from searchr1.errors import UserError
from searchr1.rewards import REWARDS, build_reward
from searchr1.types import (
    Answer,
    Passage,
    Question,
    Search,
    SearchOutcome,
    Segment,
    Source,
    StopReason,
    Trajectory,
    Turn,
)


def trajectory(answer: str | None, searches: int = 0) -> Trajectory:
    text = f"<think>t</think><answer>{answer}</answer>"
    segments = [Segment(Source.POLICY, (0,), (0.0,)) for _ in range(searches)]
    segments.append(Segment(Source.POLICY, tuple(map(ord, text)), (0.0,) * len(text)))
    turns = [Turn(Search("s"), search=SearchOutcome.FOUND)] * searches
    turns += [Turn(Answer(answer))] if answer is not None else []
    stop = StopReason.ANSWERED if answer is not None else StopReason.NO_ACTION
    return Trajectory(Question("q", "?", ("red fox",)), tuple(segments), tuple(turns), answer, stop, 0, 0)


def decode(token_ids: object) -> str:
    return "".join(map(chr, token_ids))  # type: ignore[call-overload]


def test_group_is_scored_in_order_with_unweighted_parts_and_diagnostics() -> None:
    reward = build_reward({"economy": {"weight": 2.0, "cost": 0.25}, "f1": 0.5})
    group = [trajectory("red fox", searches=1), trajectory("a red dog"), trajectory(None)]
    scored = reward.score_group(group)
    assert [item.trajectory for item in scored] == group
    assert [dict(item.components) for item in scored] == [
        {"economy": 0.75, "f1": 1.0, "exact_match": 1.0, "cover_match": 1.0},
        {"economy": 0.0, "f1": 0.5, "exact_match": 0.0, "cover_match": 0.0},
        {"economy": 0.0, "f1": 0.0, "exact_match": 0.0, "cover_match": 0.0},
    ]
    assert [item.reward for item in scored] == [2.0, 0.25, 0.0]
    assert reward.score(group[0], group) == 2.0


def test_exact_match_and_format_give_the_four_values_of_the_format_reward() -> None:
    reward = build_reward({"exact_match": 0.8, "format": 0.2}, decode=decode)
    right, wrong = trajectory("red fox"), trajectory("dog")
    broken_right, broken_wrong = (
        Trajectory(t.question, (Segment(Source.POLICY, (65,), (0.0,)),), t.turns, t.answer, t.stop, 0, 0)
        for t in (right, wrong)
    )
    scores = [item.reward for item in reward.score_group([right, broken_right, wrong, broken_wrong])]
    assert scores == pytest.approx([1.0, 0.8, 0.2, 0.0])


def test_weight_is_one_unless_given() -> None:
    assert [part.weight.at(0) for part in build_reward({"economy": {"cost": 0.3}}).parts] == [1.0, 0.0, 0.0, 0.0]


def test_turn_rewards_are_weighted_added_up_and_part_of_the_reward() -> None:
    passages = [Passage("1", "Fox", "The red fox."), Passage("2", "Dog", "A dog.")]
    whole = trajectory("red fox", searches=3)
    turns = [Turn(Search("s"), (passage,), SearchOutcome.FOUND) for passage in (passages[1], passages[0], passages[0])]
    found = replace(whole, turns=(*turns, whole.turns[-1]))
    table = {"f1": 0.5, "new_evidence": {"weight": {"0": 0.0, "10": 1.0}}}
    by_step = {step: build_reward(table).score_group([found], step=step)[0] for step in (0, 5, 10)}
    assert {step: scored.turn_rewards for step, scored in by_step.items()} == {
        0: (0.0, 0.0, 0.0, 0.0),
        5: (0.0, 0.5, -0.5, 0.0),
        10: (0.0, 1.0, -1.0, 0.0),
    }
    assert [scored.reward for scored in by_step.values()] == [0.5, 0.5, 0.5]
    assert [scored.components["new_evidence"] for scored in by_step.values()] == [0.0, 0.0, 0.0]
    gains = {"exact_match": 0.25, "new_evidence": {"weight": 2.0, "redundancy": 0.0}}
    [scored] = build_reward(gains).score_group([found])
    assert (scored.turn_rewards, scored.reward, scored.components["new_evidence"]) == ((0.0, 2.0, 0.0, 0.0), 2.25, 1.0)


def test_parts_that_pay_at_turns_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REWARDS, "again", ("searchr1.rewards.new_evidence", "NewEvidence"))
    turn = Turn(Search("s"), (Passage("1", "Fox", "The red fox."),), SearchOutcome.FOUND)
    found = replace(trajectory(None), turns=(turn,))
    [scored] = build_reward({"new_evidence": 1.0, "again": -0.25}).score_group([found])
    assert (scored.turn_rewards, scored.reward) == ((0.75,), 0.75)


def test_without_a_part_that_pays_at_turns_everything_is_earned_at_the_end() -> None:
    assert build_reward({"exact_match": 1.0}).score_group([trajectory("red fox")])[0].turn_rewards == ()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "expected at least one of exact_match"),
        (
            {"exact_macth": 1.0},
            r"reward\.exact_macth: no such reward; did you mean 'exact_match'\?; or, for one of your",
        ),
        ({"economy": {"costs": 0.1}}, r"reward\.economy\.costs: no such option; did you mean 'cost'\?"),
        ({"f1": {"wieght": 0.1}}, r"reward\.f1\.wieght: no such option; did you mean 'weight'\?"),
        ({"format": {"decode": 1}}, r"reward\.format\.decode: no such option"),
        ({"f1": {"weight": "big"}}, r"reward\.f1\.weight: expected a finite number, .*got 'big'"),
        ({"f1": {"weight": {"late": 1.0}}}, r"reward\.f1\.weight: expected steps that are whole numbers"),
        ({"f1": True}, r"reward\.f1\.weight: expected a finite number, .*got True"),
        ({"f1": float("inf")}, r"reward\.f1\.weight: expected a finite number, .*got inf"),
        ({"economy": {"cost": 2}}, r"reward\.economy: cost: expected a number of at least 0 and below 1, got 2"),
        ({"economy": {"cost": "2"}}, r"reward\.economy: "),
    ],
)
def test_wrong_tables(table: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_reward(table, decode=decode)


def test_a_reward_that_reads_text_needs_decode() -> None:
    with pytest.raises(ValueError, match="'format' reads the policy's text"):
        build_reward({"format": 1.0})


@pytest.mark.parametrize("name", REWARDS)
def test_every_reward_is_reachable_frozen_and_fair_to_a_trajectory_without_an_answer(name: str) -> None:
    module, class_name = REWARDS[name]
    reward_class = getattr(import_module(module), class_name)
    assert reward_class.__dataclass_params__.frozen
    assert all(field.name == "decode" or field.default is not None for field in fields(reward_class))
    reward = build_reward({name: 1.0}, decode=decode)
    assert reward.score_group([trajectory(None)])[0].reward == (-1.0 if name == "ikea" else 0.0)
