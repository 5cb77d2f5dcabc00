"""DAPO (arXiv 2503.14476): GRPO with clip-higher, a mean over tokens and overlong filtering.

Its other pieces are not losses, and stand where they belong: dynamic sampling is ``rollout.refill`` (section 3.2), the
soft overlong punishment the reward ``length`` (eq. 13).
"""

from __future__ import annotations

from dataclasses import dataclass

from searchr1.algorithms.grpo import GRPO


@dataclass(frozen=True)
class DAPO(GRPO):
    """The table ``[algorithm] name = "dapo"``: `GRPO` with other defaults (section 4.1: 0.2 and 0.28).

    >>> DAPO().clip_high, DAPO().drop_cut
    (0.28, True)
    """

    clip_high: float = 0.28
    drop_cut: bool = True
