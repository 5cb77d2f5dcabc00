"""``[alarms]``: when an alarm fires, and what happens then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from searchr1.errors import UserError, nearest

NAMES = ("nonfinite", "reward", "entropy", "likelihood", "searches", "valid_actions", "signal", "length", "kl",
         "grad_norm", "mismatch")  # fmt: skip
"""Every alarm, as ``ignore`` names it."""


@dataclass(frozen=True)
class Alarms:
    """``[alarms]``: limits that healthy runs keep well inside, and what a critical alarm does.

    "Now" is always the median of the last ``window`` rows, "early" the median of the first ``warmup``, "best" the best
    median of ``window`` rows so far: one bad step fires nothing but ``nonfinite``.
    """

    action: Literal["log", "stop", "rollback"] = "rollback"
    """At a critical alarm: note it only; end the run; or go back to the last healthy checkpoint with a lower rate."""
    ignore: tuple[str, ...] = ()
    """Alarms that are switched off."""
    warmup: int = 10
    """Rows before any alarm but ``nonfinite`` may fire."""
    window: int = 5
    confirm: int = 20
    """A checkpoint is healthy when no alarm fires at its step and in this many steps after it: collapse shows late."""
    rollback_factor: float = 0.5
    """The learning rate is multiplied by this at every rollback."""
    max_rollbacks: int = 3
    """A critical alarm after so many rollbacks ends the run."""
    reward_fall: float = 0.5
    """Critical: exact match in training is below this share of its best."""
    entropy_rise: float = 3.0
    """Critical: the entropy is above this many times its early level, and above 1 nat."""
    entropy_fall: float = 0.02
    """Critical: it is below this share of its early level while exact match is below 3/4 of its best."""
    valid_actions_fall: float = 0.5
    """Critical: the share of turns with a valid action is below this share of its best."""
    likelihood_fall: float = 0.15
    """Warning: the log-probability of right trajectories is so many nats a token below its best."""
    searches_fall: float = 0.1
    """Warning: searches per trajectory are below this share of their best."""
    length_rise: float = 3.0
    """Warning: a trajectory's policy tokens are above this many times their early level."""
    kl: float = 0.1
    """Warning: nats a token between the policy that sampled and the one that is trained, within one step."""
    grad_norm_rise: float = 15.0
    """Warning: the gradient norm is above this many times its early level."""
    mismatch_kl: float = 0.05
    """Warning: nats a token between sampler and trainer on the same weights."""
    mismatch_max: float = 10.0
    """Warning: the largest difference of a token's log-probability between the two, in nats."""

    def __post_init__(self) -> None:
        for name in self.ignore:
            if name not in NAMES:
                raise UserError(f"alarms.ignore: there is no alarm {name!r}{nearest(name, NAMES)}")
        for name, least in (("warmup", 1), ("window", 1), ("confirm", 0), ("max_rollbacks", 0)):
            if getattr(self, name) < least:
                raise UserError(f"alarms.{name}: expected at least {least}, got {getattr(self, name)}")
        for name in ("entropy_rise", "likelihood_fall", "length_rise", "kl", "grad_norm_rise", "mismatch_kl",
                     "mismatch_max"):  # fmt: skip
            if not getattr(self, name) > 0:
                raise UserError(f"alarms.{name}: expected a number above 0, got {getattr(self, name)}")
        for name in ("reward_fall", "entropy_fall", "valid_actions_fall", "searches_fall"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(f"alarms.{name}: expected a share between 0 and 1, got {getattr(self, name)}")
        if not 0 < self.rollback_factor <= 1:
            raise UserError(f"alarms.rollback_factor: expected above 0 and at most 1, got {self.rollback_factor}")
