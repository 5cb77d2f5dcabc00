"""Algorithms: how rewards become advantages, and advantages a loss. One file each, pure functions of flat tensors.

An algorithm never sees a token that the policy did not sample: its tensors hold the trained tokens only, in sample
order, so a mean, a whitening or a generalised advantage estimate cannot touch a retrieved document by mistake.
Adding one is one new file and one line in ``ALGORITHMS``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from searchr1.errors import UserError, nearest

if TYPE_CHECKING:
    from searchr1.algorithms.base import Algorithm

ALGORITHMS: dict[str, str] = {
    "grpo": "searchr1.algorithms.grpo:GRPO",
    "ppo": "searchr1.algorithms.ppo:PPO",
    "reinforce": "searchr1.algorithms.reinforce:Reinforce",
    "reinforce_pp": "searchr1.algorithms.reinforce_pp:ReinforcePP",
    "rloo": "searchr1.algorithms.rloo:RLOO",
    "dr_grpo": "searchr1.algorithms.dr_grpo:DrGRPO",
    "dapo": "searchr1.algorithms.dapo:DAPO",
    "gspo": "searchr1.algorithms.gspo:GSPO",
    "cispo": "searchr1.algorithms.cispo:CISPO",
}
"""Name in a recipe -> ``module:Class``; torch is imported only when one is asked for."""


def load_algorithm(name: str) -> type[Any]:
    """The class called ``name``: a frozen dataclass whose fields are the ``[algorithm]`` table of a recipe.

    >>> load_algorithm("grpo")(clip_high=0.28).clip_high
    0.28

    Raises ``UserError`` for an unknown name.
    """
    if name not in ALGORITHMS:
        close = nearest(name, ALGORITHMS) if isinstance(name, str) else ""
        raise UserError(f"algorithm.name: expected one of {', '.join(ALGORITHMS)}, got {name!r}{close}")
    module, _, attribute = ALGORITHMS[name].partition(":")
    loaded: type[Algorithm] = getattr(importlib.import_module(module), attribute)
    return loaded
