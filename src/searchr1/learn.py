"""One step's learning: scored trajectories become samples, advantages and updates of the policy.

scored -> samples -> (reference, critic, trainer) -> advantages -> mini-batches -> policy.update
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from searchr1.algorithms.base import experience
from searchr1.algorithms.terms import zero_variance
from searchr1.config import Recipe
from searchr1.seeds import derive_seed
from searchr1.training.packing import pack
from searchr1.training.policy import Policy
from searchr1.training.samples import gather, mini_batches, score_environment, split, to_sample
from searchr1.types import Sample, Scored

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Lesson:
    """What a step taught: its metrics, and the mean advantage of each trajectory (None where it was left out)."""

    metrics: Mapping[str, float]
    advantages: Sequence[float | None]


class Learner:
    """The learning half of a run. ``algorithm`` changes between steps where a coefficient is steered."""

    def __init__(self, recipe: Recipe, policy: Policy) -> None:
        self.recipe = recipe
        self.policy = policy
        self.algorithm = recipe.build_algorithm()

    def informative(self, scored: Sequence[Scored], groups: Sequence[str]) -> set[str]:
        """The groups whose rewards differ, so that there is something to learn from the difference."""
        samples = [to_sample(scored[i], groups[i]) for i in _usable(scored, groups)]
        if not samples:
            return set()
        step = experience(samples)
        equal_S = zero_variance(step.rewards_S, step.groups_S)
        if self.algorithm.drop_cut:
            equal_S |= step.cut_S
        return _groups(samples, ~equal_S)

    def learn(self, step: int, scored: Sequence[Scored], groups: Sequence[str]) -> Lesson:
        """All updates of one step. Raises ``NumericalError``; the policy is then as the last good update left it."""
        training = self.recipe.training
        usable = _usable(scored, groups)
        samples = [to_sample(scored[i], groups[i], mask_environment=training.mask_environment) for i in usable]
        if not training.mask_environment and samples:
            samples = score_environment(samples, self.policy, training.micro_batch_tokens)
        advantages: list[float | None] = [None] * len(scored)
        if not samples:
            return Lesson({"train/trained": 0.0}, advantages)
        given = experience(samples, **self._models(samples))
        per_token: dict[str, Any] = {
            "advantages_N": self.algorithm.advantages(given),
            "returns_N": self.algorithm.returns(given),
            "reference_N": given.reference_N,
            "trainer_N": given.trainer_N,
            "values_N": given.values_N,
        }
        for index, values in zip(usable, split(samples, per_token["advantages_N"]), strict=True):
            advantages[index] = float(values.mean())
        keep_S = self.algorithm.keep(given)
        chosen = [number for number in range(len(samples)) if keep_S[number]]
        rows = self._updates(step, samples, per_token, chosen)
        equal = _groups(samples, zero_variance(given.rewards_S, given.groups_S))
        metrics = step_row(rows) | {
            "train/trained": float(len(chosen)),
            "train/zero_variance_groups": len(equal) / len({sample.group for sample in samples}),
        }
        if given.reference_N.numel():
            metrics["train/kl_coefficient"] = self.algorithm.kl_coefficient
        if not self._critic_alone(step):
            self.algorithm = self.algorithm.adapted(metrics, len(chosen))
        return Lesson(metrics, advantages)

    def state(self) -> dict[str, float]:
        """What a resumed run needs beyond weights and optimiser."""
        return {"kl_coefficient": self.algorithm.kl_coefficient}

    def restore(self, state: Mapping[str, float]) -> None:
        """The inverse of ``state``."""
        self.algorithm = replace(self.algorithm, kl_coefficient=state["kl_coefficient"])

    def _models(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """What the algorithm wants to know of every trained token before the first update."""
        needs, policy = self.algorithm.needs, self.policy
        if not (needs.reference or needs.trainer or needs.values):
            return {}
        packed = pack(samples, max_tokens=self.recipe.training.micro_batch_tokens)
        return {
            "reference_N": policy.score(packed, reference=True) if needs.reference else None,
            "trainer_N": policy.score(packed) if needs.trainer else None,
            "values_N": policy.values(packed) if needs.values else None,
        }

    def _updates(
        self, step: int, samples: Sequence[Sample], per_token: Mapping[str, Any], chosen: Sequence[int]
    ) -> list[dict[str, float]]:
        """The optimiser steps over parts of the ``chosen`` samples: a row of metrics for each."""
        training, rows = self.recipe.training, []
        alone = self._critic_alone(step)
        for part in mini_batches(len(chosen), training.updates_per_batch, derive_seed(self.recipe.seed, step, "parts")):
            picked = [chosen[number] for number in part]
            given: dict[str, Any] = {
                n: gather(samples, values, picked) for n, values in per_token.items() if len(values)
            }
            chosen_samples = [samples[number] for number in picked]
            batches = pack(chosen_samples, **given, max_tokens=training.micro_batch_tokens)
            rows.append(self.policy.update(batches, self.algorithm.loss, critic_alone=alone))
        return rows

    def _critic_alone(self, step: int) -> bool:
        """Whether the policy stays as it is in this step, for the critic to catch up."""
        return bool(self.algorithm.needs.values and step <= self.recipe.critic.alone_steps)


def _groups(samples: Sequence[Sample], wanted_S: Tensor) -> set[str]:
    return {sample.group for sample, wanted in zip(samples, wanted_S.tolist(), strict=True) if wanted}


def _usable(scored: Sequence[Scored], groups: Sequence[str]) -> list[int]:
    """Trajectories that ended by the policy's doing and have something to train.

    The only one that is left of a group is left out, too: there is nothing to compare it with any more, and its bare
    reward would be taken for an advantage.
    """
    fine = [i for i, item in enumerate(scored) if not item.trajectory.failed and any(item.trajectory.mask)]
    played, left = Counter(groups), Counter(groups[i] for i in fine)
    return [i for i in fine if left[groups[i]] > 1 or played[groups[i]] == 1]


def step_row(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Metrics of a step from those of its updates: means, maxima where the name says so, ``learning_rate`` the last.

    Before its first update the policy is the one that sampled, so the first row's distance between the two is the
    mismatch of engine and trainer.
    """
    if not rows:
        return {}
    combined = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        combined[f"train/{name}"] = max(values) if name.endswith("_max") else sum(values) / len(values)
    if "train/learning_rate" in combined:
        combined["learning_rate"] = combined.pop("train/learning_rate")
    if "kl" in rows[0]:
        combined["train/mismatch_kl"] = rows[0]["kl"]
        combined["train/mismatch_max"] = rows[0]["difference_max"]
        del combined["train/difference_max"]
    good = combined.pop("train/good_tokens", 0.0)
    likelihood = combined.pop("train/good_logprob", 0.0)
    return combined | ({"train/correct_logprob": likelihood / good} if good else {})
