"""Dr. GRPO, "GRPO done right" (arXiv 2503.20783): neither the group's deviation nor a sample's length is divided by.

Dividing by the deviation lets very easy and very hard questions weigh more; dividing by a sample's length lets long
wrong answers weigh less (sections 3.1 and 3.2). The sum over a sample's tokens is divided by a constant instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from searchr1.algorithms import terms
from searchr1.algorithms.grpo import GRPO


@dataclass(frozen=True)
class DrGRPO(GRPO):
    """The table ``[algorithm] name = "dr_grpo"``: `GRPO` with other defaults.

    >>> DrGRPO().normalize_std, DrGRPO().aggregate
    (False, 'fixed')
    """

    normalize_std: bool = False
    aggregate: terms.Aggregate = "fixed"
