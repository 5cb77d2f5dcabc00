"""Are two evaluations different? Paired tests on the questions that both answered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from searchr1.errors import UserError
from searchr1.evaluation.bootstrap import paired_difference, paired_macro_difference
from searchr1.evaluation.paired import detectable_difference, detectable_mean, mcnemar
from searchr1.evaluation.results import Evaluation, QuestionKey, read_evaluation, same_question

Values = list[float]


def compare(dir_a: str | Path, dir_b: str | Path, *, seed: int = 0) -> dict[str, Any]:
    """Exact match of B minus exact match of A on their common questions: above zero, B is better.

        {"n": 500, "difference": 0.042, "ci_low": 0.006, "ci_high": 0.078, "p_value": 0.025,
         "mcnemar_p": 0.028, "only_a": 33, "only_b": 54, "detectable": 0.052, "left_out": 0, "unmatched": 0,
         "datasets": {NAME: the same, without "unmatched"},
         "macro": {"difference", "ci_low", "ci_high", "p_value", "detectable"} or None}

    ``ci`` and ``p_value`` are the paired bootstrap's; ``mcnemar_p`` is exact. ``only_a``, ``only_b``: questions that
    one alone got right. ``detectable``: the true difference that a test of so many questions, with as many on which the
    two differ, finds in 80% of all cases; None where they differ on too few. ``left_out``: common questions that failed
    in one. ``unmatched``: questions that are in one folder only. ``macro``, where there are several data sets: the
    unweighted mean over them, resampled within each.

    Where questions were sampled several times, each counts with the mean over its samples, and what counts right and
    wrong (``mcnemar_p``, ``only_a``, ``only_b``) is None. Raises UserError for folders that are not evaluations, an id
    used twice, one id for two different questions, and nothing in common.
    """
    a, b = read_evaluation(dir_a), read_evaluation(dir_b)
    common = [key for key in a.questions if key in b.questions]
    if not common:
        raise UserError(f"{dir_a} and {dir_b}: expected common questions, found none; evaluate both on the same data")
    for key in common:
        same_question(a.questions[key], b.questions[key], key, f"{dir_a} and {dir_b}")
    sets = {name: [key for key in common if key[0] == name] for name in dict.fromkeys(dataset for dataset, _ in common)}
    pairs = {name: _pair(a, b, keys) for name, keys in sets.items()}
    whole = ([x for xs, _ in pairs.values() for x in xs], [y for _, ys in pairs.values() for y in ys])
    if not whole[0]:
        raise UserError(
            f"{dir_a} and {dir_b}: each of the {len(common)} common questions failed in one; evaluate again"
        )
    once = max(a.samples, b.samples) == 1
    return {
        **_figures(*whole, len(common), once, seed),
        "unmatched": len(a.questions) + len(b.questions) - 2 * len(common),
        "datasets": {name: _figures(*pairs[name], len(keys), once, seed) for name, keys in sets.items()},
        "macro": _macro([pair for pair in pairs.values() if pair[0]], seed) if len(sets) > 1 else None,
    }


def _pair(a: Evaluation, b: Evaluation, keys: Sequence[QuestionKey]) -> tuple[Values, Values]:
    """Exact match of the questions that failed in neither."""
    found = ((a.questions[key]["exact_match"], b.questions[key]["exact_match"]) for key in keys)
    kept = [(x, y) for x, y in found if x is not None and y is not None]
    return [x for x, _ in kept], [y for _, y in kept]


def _figures(a: Values, b: Values, common: int, once: bool, seed: int) -> dict[str, Any]:
    n = len(a)
    names = ("difference", "ci_low", "ci_high", "p_value")
    figures: dict[str, Any] = {"n": n, **dict.fromkeys(names)}
    figures |= dict.fromkeys(("mcnemar_p", "only_a", "only_b", "detectable"))
    if n:
        figures |= dict(zip(names, paired_difference(a, b, seed), strict=True))
    if n and once:
        only_a, only_b = (sum(x > y for x, y in zip(*pair, strict=True)) for pair in ((a, b), (b, a)))
        figures |= {"mcnemar_p": mcnemar(only_a, only_b), "only_a": only_a, "only_b": only_b}
        figures["detectable"] = detectable_difference(n, (only_a + only_b) / n)
    elif n:
        figures["detectable"] = detectable_mean([_differences(a, b)])
    return figures | {"left_out": common - n}


def _macro(pairs: Sequence[tuple[Values, Values]], seed: int) -> dict[str, Any]:
    difference, low, high, p_value = paired_macro_difference(pairs, seed)
    detectable = detectable_mean([_differences(a, b) for a, b in pairs])
    return {"difference": difference, "ci_low": low, "ci_high": high, "p_value": p_value, "detectable": detectable}


def _differences(a: Values, b: Values) -> Values:
    return [y - x for x, y in zip(a, b, strict=True)]
