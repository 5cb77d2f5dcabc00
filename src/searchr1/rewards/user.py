"""A reward of the user's own: a function in a file, ``path.py:function``.

It is called as ``function(trajectory, group, **options)`` and answers a finite number. See ``docs/rewards.md``.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

from searchr1.errors import UserError, nearest
from searchr1.types import Trajectory

RESERVED = frozenset(
    ("trajectories", "reward", "searches", "valid_actions", "cut_turns", "truncated_observations", "trained",
     "zero_variance_groups", "loss", "grad_norm", "kl", "entropy", "mismatch_kl", "mismatch_max", "correct_logprob",
     "clip_fraction", "ratio_max", "llds", "corrected", "reference_kl", "kl_coefficient", "value", "value_loss",
     "value_error", "critic_grad_norm")
)  # fmt: skip
"""Names under ``train/`` that no reward may have, because they are metrics of their own."""


@dataclass(frozen=True)
class UserReward:
    """The reward ``reward.NAME`` of a recipe, computed by a function of the user's.

    Nothing is read before the first `score` (or `load`), so that a finished run can be looked at where the file is not.
    """

    name: str
    path: Path
    function: str
    options: Mapping[str, Any]

    def load(self) -> None:
        """Read the file now. Raises UserError for a missing file or function, or one that takes other arguments.

        What goes wrong while the file is executed keeps its traceback, with a note that names the file.
        """
        _ = self._function

    def score(self, trajectory: Trajectory, group: Sequence[Trajectory]) -> float:
        """What the function answers. Raises UserError where that is not a finite number."""
        function = self._function
        try:
            value = function(trajectory, group, **self.options)
        except Exception as error:  # whatever the user's code raises is passed on as it is, with its origin
            error.add_note(f"in reward.{self.name} ({self._source}), question {trajectory.question.id!r}")
            raise
        if not isinstance(value, Real) or not math.isfinite(value):
            raise UserError(
                f"reward.{self.name}: expected {self._source} to return a finite number, got {value!r} for question "
                f"{trajectory.question.id!r}"
            )
        return float(value)

    @property
    def _source(self) -> str:
        return f"{self.path}:{self.function}"

    @cached_property
    def _function(self) -> Callable[..., Any]:
        if not self.path.is_file():
            raise UserError(f"reward.{self.name}: expected a Python file, found none at {self.path}; check the path")
        try:
            module = _module(self.path)
        except Exception as error:  # whatever the user's code raises is passed on as it is, with its origin
            error.add_note(f"while loading {self.path} for reward.{self.name}")
            raise
        found: Callable[..., Any] | None = getattr(module, self.function, None)
        if not callable(found):
            functions = [name for name, value in vars(module).items() if inspect.isfunction(value)]
            raise UserError(
                f"reward.{self.name}: there is no function {self.function!r} in {self.path}"
                f"{nearest(self.function, functions)}"
            )
        self._check_call(found)
        return found

    def _check_call(self, found: Callable[..., Any]) -> None:
        try:
            signature = inspect.signature(found)
        except ValueError:  # some of C's functions do not tell; calling it will
            return
        try:
            signature.bind(None, (), **self.options)
        except TypeError as error:
            called = ", ".join(["trajectory", "group", *(f"{key}={value!r}" for key, value in self.options.items())])
            raise UserError(
                f"reward.{self.name}: {self._source} is called as {self.function}({called}), but it takes {signature}: "
                f"{error}"
            ) from error
        if inspect.iscoroutinefunction(found):
            raise UserError(f"reward.{self.name}: expected {self._source} to be a plain function, it is async")


def user_reward(name: str, source: Any, options: Mapping[str, Any]) -> UserReward:
    """The reward ``name`` that ``source`` names. Raises UserError where that is no ``path.py:function``.

    >>> reward = user_reward("mine", "my/rewards.py:brief", {"limit": 3})
    >>> reward.path.name, reward.function
    ('rewards.py', 'brief')
    """
    path, colon, function = str(source).rpartition(":")
    if not isinstance(source, str) or not colon or not path.endswith(".py") or not function.isidentifier():
        raise UserError(f"reward.{name}: expected a function as path.py:function, got {source!r}")
    return UserReward(name, Path(path).expanduser().absolute(), function, options)


@cache
def _module(path: Path) -> ModuleType:
    """The file as a module, executed once a process, under a name that nothing else has."""
    name = f"searchr1_reward_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path}: expected a Python file that can be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look there
    try:
        spec.loader.exec_module(module)
    except BaseException:  # whatever it was: a half-made module must not stay
        del sys.modules[name]
        raise
    return module
