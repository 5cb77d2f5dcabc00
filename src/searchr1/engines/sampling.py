"""From logits to tokens, for a whole batch at once, and the same for a request whatever else is in the batch.

A request's random numbers come from a counter-based generator keyed by its seed, one per token, and a token is picked
by inverting the cumulative distribution; so a row's token depends on its own logits and its own number only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch

from searchr1.errors import EngineError, UserError
from searchr1.types import Sampling


def uniforms(seed: int, count: int) -> list[float]:
    """``count`` numbers in [0, 1) from Philox-4x64 (Salmon et al. 2011) keyed by ``seed``.

    A longer list begins with the shorter one:

    >>> uniforms(7, 3) == uniforms(7, 5)[:3]
    True
    """
    bits = np.random.Philox(key=seed & ((1 << 128) - 1))
    return cast("list[float]", np.random.Generator(bits).random(count).tolist())


def check(sampling: Sampling) -> None:
    """Raise ``UserError`` unless the numbers make sense."""
    if sampling.max_tokens < 1:
        raise UserError(f"max_tokens must be at least 1, got {sampling.max_tokens}")
    if not 0.0 <= sampling.temperature < float("inf"):
        raise UserError(f"temperature must be 0 (greedy) or a positive number, got {sampling.temperature}")
    if not 0.0 < sampling.top_p <= 1.0:
        raise UserError(f"top_p must be above 0 and at most 1, got {sampling.top_p}")


def sample(
    logits: torch.Tensor, choices: Sequence[Sampling], numbers: Sequence[float]
) -> tuple[list[int], list[float]]:
    """One token and its log-probability per row of ``logits`` [rows, vocabulary].

    The log-probability is that of the distribution which was sampled from, after temperature and top-p; greedy rows
    (temperature 0) give 0.0. Raises ``EngineError`` when a distribution is not finite.

    >>> sample(torch.tensor([[0.0, 3.0]]), [Sampling(1, temperature=0.0)], [0.9])
    ([1], [0.0])
    """
    logits = logits.float()
    temperatures = [choice.temperature for choice in choices]
    greedy = 0.0 in temperatures
    if greedy and not any(temperatures):
        best = logits.max(-1)
        _require_finite(best.values)
        return best.indices.tolist(), [0.0] * len(choices)
    if any(temperature != 1.0 for temperature in temperatures):
        scale = torch.tensor([[temperature or 1.0] for temperature in temperatures], device=logits.device)
        distribution = (logits / scale).log_softmax(-1)
    else:
        distribution = logits.log_softmax(-1)
    if any(choice.top_p < 1.0 for choice in choices):
        distribution = _nucleus(distribution, [choice.top_p for choice in choices])
    tokens = _invert(distribution.exp(), numbers)
    if greedy:
        is_greedy = torch.tensor([temperature == 0.0 for temperature in temperatures], device=logits.device)
        tokens = torch.where(is_greedy, logits.argmax(-1), tokens)
    logprobs = distribution.gather(1, tokens[:, None])[:, 0].tolist()
    pairs = zip(logprobs, temperatures, strict=True)
    return tokens.tolist(), [p if t else 0.0 for p, t in pairs] if greedy else logprobs


def _nucleus(logprobs: torch.Tensor, top_p: Sequence[float]) -> torch.Tensor:
    """Keep the fewest most likely tokens that hold ``top_p`` of the mass, and renormalise (Holtzman et al. 2020)."""
    ranked, order = logprobs.sort(dim=-1, descending=True, stable=True)
    mass = ranked.exp()
    before = mass.cumsum(-1, dtype=torch.float64) - mass
    limit = torch.tensor(top_p, dtype=torch.float64, device=logprobs.device)[:, None]
    # A row with top_p = 1 keeps everything, also the tail whose rounded cumulative mass reaches 1 too early.
    dropped = (before >= limit) & (limit < 1.0)
    return logprobs.masked_fill(dropped.scatter(1, order, dropped), -torch.inf).log_softmax(-1)


def _invert(probabilities: torch.Tensor, numbers: Sequence[float]) -> torch.Tensor:
    """The token at which each row's cumulative probability first exceeds its number's share of the total.

    In double precision ``number * total < total`` holds for every number below 1, so a token is always found, and never
    one of probability 0.
    """
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    _require_finite(total)
    share = torch.tensor(numbers, dtype=torch.float64, device=total.device)[:, None] * total
    return torch.searchsorted(cumulative, share, right=True)[:, 0]


def _require_finite(values: torch.Tensor) -> None:
    if not bool(torch.isfinite(values).all()):
        raise EngineError(
            "the model's logits are not finite: the weights hold NaN or infinity, or overflowed the dtype"
        )
