"""The alarms: each one function of the history of metric rows, named in ``WATCHES``.

A history is the rows of ``metrics.jsonl`` as they stand, oldest first; the newest is judged. A rollback takes its rows
out of that file, so what counts is always one line of training. Rows read back from the file judge as those in memory
do: a number that is not finite is null there, and both are skipped wherever they are not the newest row's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from searchr1.alarms.history import History, Row
from searchr1.alarms.settings import Alarms

ARMED_MATCH, ARMED_VALID, ARMED_SEARCHES = 0.1, 0.2, 0.5
"""Best values below which there is nothing yet that could collapse."""
ONE_NAT = 1.0
SOLVED = 0.9
"""Exact match from which it is no wonder that all rewards are equal."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm at one step. ``value`` crossed ``limit``; ``critical`` ones act, ``warning`` ones only tell.

    >>> Alarm("kl", "warning", 40, "train/kl", 0.31, 0.2, "the policy moves too far within one step: ...").name
    'kl'
    """

    name: str
    level: Literal["warning", "critical"]
    step: int
    metric: str
    """The metric that shows it best, for charts."""
    value: float
    limit: float
    message: str
    """What is wrong and what to do, for the user."""


def check(rows: Sequence[Row], alarms: Alarms) -> list[Alarm]:
    """The alarms that hold at the newest row: again at every row for as long as they do, critical ones first.

    >>> rows = [{"step": step, "train/exact_match": 0.6 if step < 30 else 0.1} for step in range(1, 33)]
    >>> [check(rows[:end], Alarms()) == [] for end in (29, 31)], [alarm.name for alarm in check(rows, Alarms())]
    ([True, True], ['reward'])
    """
    if not rows:
        return []
    history = History(rows, alarms)
    found = [alarm for name, watch in WATCHES.items() if name not in alarms.ignore for alarm in watch(history)]
    return sorted(found, key=lambda alarm: alarm.level != "critical")


def numerical_alarm(step: int, error: Exception) -> Alarm:
    """What a ``NumericalError`` of the update of ``step`` is among the alarms."""
    message = f"{error}. {_NUMERICS}"
    return Alarm("nonfinite", "critical", step, "train/loss", math.nan, math.inf, message)


def nonfinite(history: History) -> Iterator[Alarm]:
    for metric, value in history.rows[-1].items():
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            message = f"{metric} is not a finite number. {_NUMERICS}"
            yield Alarm("nonfinite", "critical", history.step, metric, math.nan, math.inf, message)
            return


def reward(history: History) -> Iterator[Alarm]:
    metric, share = "train/exact_match", history.alarms.reward_fall
    move = history.fall(metric, lambda best: share * best)
    if move is not None and move.then >= ARMED_MATCH:
        message = (
            f"exact match in training fell to {move.now:.3f}, less than {share:g} of its best ({move.then:.3f}): the "
            "policy collapsed. Go on from a checkpoint before the fall, with a lower optimizer.learning_rate or fewer "
            "training.updates_per_batch, or protect right answers with algorithm.llds."
        )
        yield Alarm("reward", "critical", history.step, metric, move.now, move.limit, message)


def entropy(history: History) -> Iterator[Alarm]:
    """Too high: the policy becomes random. Near zero while it gets worse: it is sure of what is wrong."""
    metric, factor = "train/entropy", history.alarms.entropy_rise
    move = history.rise(metric, lambda early: max(factor * early, ONE_NAT))
    if move is not None:
        message = (
            f"the entropy rose to {move.now:.2f} nats a token, from {move.then:.2f} early on: the policy becomes "
            "random, and the reward will follow. Lower optimizer.learning_rate, drop algorithm.entropy_bonus, or set "
            "algorithm.llds (arXiv 2512.04220)."
        )
        yield Alarm("entropy", "critical", history.step, metric, move.now, move.limit, message)
    values, worse = history.series(metric), history.fall("train/exact_match", lambda best: 0.75 * best)
    if values is None or worse is None:
        return
    now, limit = history.now(values), history.alarms.entropy_fall * history.early(values)
    if now < limit:
        message = (
            f"the entropy fell to {now:.4f} nats a token while exact match fell to {worse.now:.3f} from "
            f"{worse.then:.3f}: the policy repeats itself and cannot find a way back. Add algorithm.entropy_bonus, "
            "raise algorithm.clip_high, or lower optimizer.learning_rate."
        )
        yield Alarm("entropy", "critical", history.step, metric, now, limit, message)


def valid_actions(history: History) -> Iterator[Alarm]:
    metric, share = "train/valid_actions", history.alarms.valid_actions_fall
    move = history.fall(metric, lambda best: share * best)
    if move is not None and move.then >= ARMED_VALID:
        message = (
            f"only {move.now:.1%} of the turns hold a search or an answer, {move.then:.1%} did at best: the policy "
            "forgets the format. Add reward.format, lower optimizer.learning_rate, or set algorithm.drop_cut."
        )
        yield Alarm("valid_actions", "critical", history.step, metric, move.now, move.limit, message)


def likelihood(history: History) -> Iterator[Alarm]:
    """Lazy likelihood displacement (arXiv 2512.04220): the early sign of GRPO's collapse, long before the reward's."""
    metric = "train/correct_logprob"
    move = history.fall(metric, lambda best: best - history.alarms.likelihood_fall)
    if move is not None:
        message = (
            f"right trajectories lost likelihood: {move.now:.2f} nats a token now, {move.then:.2f} at best, although "
            "they are what is rewarded (lazy likelihood displacement, arXiv 2512.04220). Set algorithm.llds = 0.1, use "
            "fewer training.updates_per_batch, or lower optimizer.learning_rate."
        )
        yield Alarm("likelihood", "warning", history.step, metric, move.now, move.limit, message)


def searches(history: History) -> Iterator[Alarm]:
    metric = "train/searches"
    move = history.fall(metric, lambda best: history.alarms.searches_fall * best)
    if move is not None and move.then >= ARMED_SEARCHES:
        message = (
            f"the policy stopped searching: {move.now:.2f} searches a trajectory, {move.then:.2f} at best. Where it "
            "should search: look at what the search engine returns, and lower reward.economy.cost if it is set."
        )
        yield Alarm("searches", "warning", history.step, metric, move.now, move.limit, message)


def signal(history: History) -> Iterator[Alarm]:
    """In most of the last steps every group's rewards were all equal: nothing is learned, and nothing else says so."""
    metric = "train/zero_variance_groups"
    values, matches = history.series(metric), history.series("train/exact_match")
    if values is None or history.now(values) < 1 or (matches is not None and history.now(matches) >= SOLVED):
        return
    message = (
        "no trajectory taught anything in most of the last steps: all rewards of every question are equal. Use easier "
        "questions, a larger rollout.group_size, a finer reward (f1, format), or a model that answers some of them."
    )
    yield Alarm("signal", "warning", history.step, metric, 1.0, 1.0, message)


def length(history: History) -> Iterator[Alarm]:
    metric = "tokens/policy"
    move = history.rise(metric, lambda early: history.alarms.length_rise * early)
    if move is not None:
        message = (
            f"a trajectory has {move.now:.0f} policy tokens, {move.then:.0f} early on: it rambles. Look at "
            "trajectories/; set algorithm.drop_cut, or lower rollout.turn_tokens."
        )
        yield Alarm("length", "warning", history.step, metric, move.now, move.limit, message)


def kl(history: History) -> Iterator[Alarm]:
    metric, limit = "train/kl", history.alarms.kl
    values = history.series(metric)
    if values is not None and (now := history.now(values)) > limit:
        message = (
            f"the updates of one step move the policy {now:.2f} nats a token from the one that sampled: too far for "
            "its samples to say anything. Lower optimizer.learning_rate or training.updates_per_batch."
        )
        yield Alarm("kl", "warning", history.step, metric, now, limit, message)


def grad_norm(history: History) -> Iterator[Alarm]:
    metric = "train/grad_norm"
    values = history.series(metric)
    if values is None:
        return
    now, early = history.now(values), history.early(values)
    limit = history.alarms.grad_norm_rise * early
    if early > 0 and now > limit:
        message = (
            f"the gradient norm is {now:.3g}, {early:.3g} early on: a few tokens drive the updates. Lower "
            "optimizer.learning_rate or optimizer.max_grad_norm, or set algorithm.llds."
        )
        yield Alarm("grad_norm", "warning", history.step, metric, now, limit, message)


def mismatch(history: History) -> Iterator[Alarm]:
    """Sampler and trainer disagree about the same weights: then every sample is off-policy from the start."""
    for metric, limit in (
        ("train/mismatch_kl", history.alarms.mismatch_kl),
        ("train/mismatch_max", history.alarms.mismatch_max),
    ):
        values = history.series(metric)
        if values is not None and (now := history.now(values)) > limit:
            message = (
                f"{metric} is {now:.3g}: the engine samples from another distribution than the trainer trains. Give "
                "both the same precision, or set algorithm.correction = 'token'."
            )
            yield Alarm("mismatch", "warning", history.step, metric, now, limit, message)
            return


WATCHES: dict[str, Callable[[History], Iterator[Alarm]]] = {
    "nonfinite": nonfinite,
    "reward": reward,
    "entropy": entropy,
    "likelihood": likelihood,
    "searches": searches,
    "valid_actions": valid_actions,
    "signal": signal,
    "length": length,
    "kl": kl,
    "grad_norm": grad_norm,
    "mismatch": mismatch,
}
"""Every alarm by its name in ``[alarms] ignore``."""

_NUMERICS = (
    "Lower optimizer.learning_rate, keep optimizer.max_grad_norm at 1 or below, or use optimizer.precision = 'float32'."
)
