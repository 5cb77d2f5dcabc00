"""Every algorithm, with its advantages, loss and updates, makes a policy better at a task of two turns.

Three questions; the right first word and the right second word depend on the question, and one word of the environment
stands between them. Each right word earns a half. Guessing among eight words earns an eighth.
"""

from __future__ import annotations

from statistics import fmean
from typing import Any

import pytest
import torch

from searchr1.algorithms import ALGORITHMS
from searchr1.learn import Learner
from searchr1.training.policy import Policy
from searchr1.types import Answer, Question, Scored, Search, Segment, Source, StopReason, Trajectory, Turn
from tiny_runs import policy_for, recipe_of

WORDS, HEARD = 8, 7
STEPS, SIZE = 24, 10
VARIANTS: dict[str, dict[str, Any]] = {name: {"name": name} for name in ALGORITHMS} | {
    "gspo": {"name": "gspo", "clip_low": 0.1, "clip_high": 0.1},
    "ppo": {"name": "ppo", "gae_lambda": 0.95},
    "ppo with a shared critic and kl": {"name": "ppo", "kl": "k1", "llds": 0.1},
    "reinforce_pp with group means": {"name": "reinforce_pp", "baseline": "group_mean", "kl": "k2"},
    "grpo with everything": {"name": "grpo", "kl": "k3", "entropy_bonus": 0.003, "llds": 0.1, "correction": "token"},
}
CRITICS = {"ppo": "separate", "ppo with a shared critic and kl": "shared"}


def play(policy: Policy, generator: torch.Generator) -> tuple[list[Scored], list[str]]:
    """Every question ``SIZE`` times, sampled from the policy as it is."""
    questions = torch.arange(3).repeat_interleave(SIZE)
    context = questions[:, None]
    said, chances = [], []
    for _ in range(2):
        with torch.no_grad():
            table = torch.log_softmax(policy.model(input_ids=context, use_cache=False).logits[:, -1], -1)
        word = torch.multinomial(table.exp(), 1, generator=generator)
        said.append(word.squeeze(1).tolist())
        chances.append(table.gather(1, word).squeeze(1).tolist())
        context = torch.cat([context, word, torch.full_like(word, HEARD)], dim=1)
    scored = []
    for i, question in enumerate(questions.tolist()):
        earned = (0.5 * (said[0][i] == question + 3), 0.5 * (said[1][i] == question))
        segments = (
            Segment(Source.PROMPT, (question,)),
            Segment(Source.POLICY, (said[0][i],), (chances[0][i],)),
            Segment(Source.ENVIRONMENT, (HEARD,)),
            Segment(Source.POLICY, (said[1][i],), (chances[1][i],)),
        )
        turns = (Turn(Search("?"), policy_tokens=1), Turn(Answer("!"), policy_tokens=1))
        asked = Question(str(question), "?", ("!",))
        played = Trajectory(asked, segments, turns, "!", StopReason.ANSWERED, 0, i)
        scored.append(Scored(played, sum(earned), {}, earned))
    return scored, [f"bandit/{question}" for question in questions.tolist()]


@pytest.mark.parametrize("variant", VARIANTS)
def test_reward_goes_up(variant: str) -> None:
    recipe = recipe_of(
        algorithm=VARIANTS[variant],
        optimizer={"learning_rate": 0.03, "weight_decay": 0.0},
        critic={"backbone": CRITICS.get(variant, "separate"), "learning_rate": 0.03},
        training={"updates_per_batch": 2},
    )
    learner = Learner(recipe, policy_for(recipe, WORDS))
    generator = torch.Generator().manual_seed(0)
    rewards = []
    for step in range(1, STEPS + 1):
        scored, groups = play(learner.policy, generator)
        rewards.append(fmean(item.reward for item in scored))
        learner.learn(step, scored, groups)
    print(variant, [round(reward, 2) for reward in rewards])  # shown when the test fails
    assert fmean(rewards[:2]) < 0.3
    assert fmean(rewards[-4:]) > fmean(rewards[:2]) + 0.25  # seven standard errors or more
