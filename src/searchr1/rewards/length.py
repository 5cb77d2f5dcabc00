"""The soft overlong punishment of DAPO (arXiv 2503.14476, eq. 13), on what the policy itself wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from searchr1.types import Source, Trajectory


@dataclass(frozen=True, slots=True)
class LengthPenalty:
    """0 up to ``max_tokens - buffer`` policy tokens, then falling evenly to -1 at ``max_tokens``, and -1 beyond.

    Prompt and retrieved passages do not count: their length is not the policy's doing. The defaults are the paper
    budget of Search-R1 (5 turns of 500 tokens), with its last turn's worth as the buffer; set them to yours.
    """

    max_tokens: int = 2500
    buffer: int = 500

    def __post_init__(self) -> None:
        if not 0 < self.buffer <= self.max_tokens:
            raise ValueError(f"expected 0 < buffer <= max_tokens, got {self.buffer} and {self.max_tokens}")

    def score(self, trajectory: Trajectory, group: Sequence[Trajectory]) -> float:
        free = self.max_tokens - self.buffer
        return max(-1.0, min(0.0, (free - trajectory.count(Source.POLICY)) / self.buffer))
