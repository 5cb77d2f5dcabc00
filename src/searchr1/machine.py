"""What this machine has."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """The cores that this process may use, at least 1; where the system does not say, those that there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
