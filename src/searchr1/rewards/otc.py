"""OTC: a right answer counts the more the fewer searches it took (arXiv 2504.14870)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from searchr1.rewards.exact_match import exact_match
from searchr1.types import Trajectory


def tool_coefficient(calls: int, least: int, smooth: float) -> float:
    """r_tool in [0, 1] for ``calls`` searches where ``least`` are known to be enough.

    1 at m = n (``calls = least``). Above it cos(m pi / (2 m + c)) where n = 0 (eq. 5), else sin(f pi / 2n) with
    f = 2 n m / (m + n): both fall towards 0.

    >>> [round(tool_coefficient(calls, 0, 4.0), 3) for calls in (0, 1, 2, 4)]
    [1.0, 0.866, 0.707, 0.5]
    >>> [round(tool_coefficient(calls, 1, 4.0), 3) for calls in (1, 2, 4)]
    [1.0, 0.866, 0.588]
    """
    if least == 0:
        return math.cos(calls * math.pi / (2 * calls + smooth))
    mapped = 2 * least * calls / (calls + least)
    return math.sin(mapped * math.pi / (2 * least))


@dataclass(frozen=True, slots=True)
class OTC:
    """``alpha x exact match x r_tool``, with m = executed searches; see `tool_coefficient`.

    ``form = "grpo"``: n is the smallest number of searches among the right trajectories of the group. (The paper also
    remembers n from earlier epochs; a reward here remembers nothing, so that the same trajectories always score the
    same.) ``form = "ppo"``: no group is needed, n = 0. ``smooth`` is c, the paper's is the largest number of searches.

    As a product, it pays nothing for searching little and being wrong, and no right answer is worth less than a wrong
    one. But mind the sign of the *advantage*: a right answer below the mean of its group is pushed away, and in a group
    of right answers normalisation by the standard deviation makes that push large however small the difference was
    (the "sign reversal" of arXiv 2601.14696). ``algorithm.name = "dr_grpo"`` does not divide.
    """

    form: Literal["grpo", "ppo"] = "grpo"
    alpha: float = 1.0
    smooth: float = 4.0

    def __post_init__(self) -> None:
        if self.form not in ("grpo", "ppo"):
            raise ValueError(f"form: expected 'grpo' or 'ppo', got {self.form!r}")
        for name in ("alpha", "smooth"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name}: expected a finite number above 0, got {value!r}")

    def score(self, trajectory: Trajectory, group: Sequence[Trajectory]) -> float:
        if not _right(trajectory):
            return 0.0
        least = 0
        if self.form == "grpo":
            least = min(other.searches for other in (trajectory, *group) if _right(other))
        return self.alpha * tool_coefficient(trajectory.searches, least, self.smooth)


def _right(trajectory: Trajectory) -> bool:
    return exact_match(trajectory.answer, trajectory.question.answers) == 1.0
