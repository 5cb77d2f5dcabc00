"""Seeds made from what a thing *is* (run seed, step, question, rollout, turn), never from when it happens to run."""

from __future__ import annotations

import hashlib
import json


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed: the same for the same parts in any process, on any machine and whatever ``PYTHONHASHSEED`` is.

    The parts are told apart by place and type, so ``("ab", "c")``, ``("a", "bc")`` and ``(1,)``, ``("1",)`` differ.

    >>> derive_seed(0, "q1"), derive_seed(0, "q2")
    (3376472808761377233, 3684692099440710671)
    """
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
