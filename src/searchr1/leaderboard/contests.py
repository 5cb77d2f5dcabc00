"""An entry's answers as tables of seeds x questions, and one entry against another on the questions of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from searchr1.evaluation.bootstrap import paired_difference, paired_macro_difference
from searchr1.evaluation.paired import mcnemar
from searchr1.evaluation.pooled import pooled_difference
from searchr1.evaluation.results import Answered

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Block:
    """One entry on one data set: seeds x questions, the same questions in the same order for every entry."""

    answered: Sequence[Sequence[Answered]]

    def table(self, figure: str) -> Array:
        """NaN where the question failed or the folder does not say."""
        rows = [[np.nan if (value := one[figure]) is None else value for one in seed] for seed in self.answered]
        return np.array(rows, dtype=np.float64)

    def mean(self, figure: str) -> float | None:
        """Over all answers that say it; None where none does."""
        table = self.table(figure)
        return float(np.nanmean(table)) if np.isfinite(table).any() else None

    @property
    def asked(self) -> int:
        """Answers that were asked for, samples and seeds counted one by one."""
        return sum(one.samples for seed in self.answered for one in seed)

    @property
    def failed(self) -> int:
        return sum(one.failed for seed in self.answered for one in seed)

    @property
    def once(self) -> bool:
        """One seed and one sample: every value is right or wrong."""
        return len(self.answered) == 1 and all(one.samples == 1 for one in self.answered[0])


class Field:
    """One entry, one metric, every data set."""

    def __init__(self, blocks: Mapping[str, Block | None], metric: str) -> None:
        self.blocks = blocks
        self.metric = metric
        self._tables = {name: block.table(metric) for name, block in blocks.items() if block is not None}

    def kept(self, dataset: str) -> npt.NDArray[np.intp]:
        """Places of the questions that have a value for every seed."""
        return np.flatnonzero(np.isfinite(self._tables[dataset]).all(axis=0))

    def covers(self, datasets: Sequence[str]) -> bool:
        """True where it has a value to show for each of ``datasets``."""
        return all(name in self._tables and self.kept(name).size for name in datasets)

    def tables(self, datasets: Sequence[str], places: Sequence[npt.NDArray[np.intp]] | None = None) -> list[Array]:
        """Seeds x questions without a gap; only the questions at ``places`` where they are given."""
        chosen = [self.kept(name) for name in datasets] if places is None else places
        return [self._tables[name][:, place] for name, place in zip(datasets, chosen, strict=True)]

    def right_or_wrong(self, datasets: Sequence[str]) -> bool:
        blocks = [self.blocks[name] for name in datasets]
        return self.metric != "f1" and all(block is not None and block.once for block in blocks)


def against(one: Field, best: Field, datasets: Sequence[str]) -> tuple[float | None, float]:
    """``one`` minus ``best`` on the questions that failed in neither, and the two-sided p-value of that.

    McNemar's exact test where both are right or wrong on every question of a single set; the paired bootstrap where
    there are fractions or several sets; the pooled t-test where either has several seeds. Without a common question
    nothing is known: ``(None, 1.0)``.
    """
    places = [np.intersect1d(one.kept(name), best.kept(name)) for name in datasets]
    if not all(place.size for place in places):
        return None, 1.0
    a, b = best.tables(datasets, places), one.tables(datasets, places)
    several = max(len(a[0]), len(b[0])) > 1 and min(place.size for place in places) > 1
    if several:
        difference, _, _, p_value = pooled_difference([t.tolist() for t in a], [t.tolist() for t in b])
        return difference, p_value
    pairs = [(x.mean(axis=0), y.mean(axis=0)) for x, y in zip(a, b, strict=True)]
    if len(pairs) == 1 and one.right_or_wrong(datasets) and best.right_or_wrong(datasets):
        x, y = pairs[0]
        return float((y - x).mean()), mcnemar(int((x > y).sum()), int((y > x).sum()))
    if len(pairs) == 1:
        difference, _, _, p_value = paired_difference(list(pairs[0][0]), list(pairs[0][1]))
    else:
        difference, _, _, p_value = paired_macro_difference([(list(x), list(y)) for x, y in pairs])
    return difference, p_value
