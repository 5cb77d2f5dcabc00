"""Student's t: few values say little about their own spread.

W. S. Gosset ("Student"), "The probable error of a mean" (Biometrika, 1908).
"""

from __future__ import annotations

import math
from functools import cache

from searchr1.evaluation.bootstrap import NORMAL

CONFIDENCE = 0.95
_MANY = 200.0
"""Beyond so many degrees of freedom expansions in 1 / degrees are exact enough, and mpmath would not converge."""


@cache
def t_quantile(degrees: float) -> float:
    """How many standard errors Student's t with so many degrees of freedom takes to each side for 95%.

    Degrees need not be whole (Satterthwaite's are not). The tail beyond t on both sides is I_x(degrees / 2, 1 / 2) with
    x = degrees / (degrees + t^2) and I the regularised incomplete beta function (Abramowitz and Stegun, equation
    26.7.1). Raises ValueError for fewer than 1.

    >>> round(t_quantile(2), 4), round(t_quantile(2.5), 4)
    (4.3027, 3.5747)
    """
    if not degrees >= 1:
        raise ValueError(f"Student's t needs at least 1 degree of freedom, got {degrees}")
    if degrees > _MANY:  # Abramowitz and Stegun, equation 26.7.5
        z = NORMAL
        first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
        third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
        return z + first / degrees + second / degrees**2 + third / degrees**3
    from mpmath import betainc, findroot

    def excess(x: float) -> float:
        return float(betainc(degrees / 2, 0.5, 0, x, regularized=True)) - (1 - CONFIDENCE)

    x = float(findroot(excess, (1e-6, 1 - 1e-12), solver="illinois", tol=1e-24))
    return math.sqrt(degrees * (1 / x - 1))


def t_tail(t: float, degrees: float) -> float:
    """The two-sided p-value: the share of Student's t beyond ``t`` on both sides. Raises ValueError as `t_quantile`.

    >>> round(t_tail(4.302653, 2), 6), t_tail(0.0, 5)
    (0.05, 1.0)
    """
    if not degrees >= 1:
        raise ValueError(f"Student's t needs at least 1 degree of freedom, got {degrees}")
    if degrees > _MANY:  # Abramowitz and Stegun, equation 26.7.8: within 2e-5
        normal = t * (1 - 1 / (4 * degrees)) / math.sqrt(1 + t * t / (2 * degrees))
        return math.erfc(abs(normal) / math.sqrt(2))
    from mpmath import betainc

    return float(betainc(degrees / 2, 0.5, 0, degrees / (degrees + t * t), regularized=True))
