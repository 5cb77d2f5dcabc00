"""Every advantage and every loss once more, from the papers: plain Python floats, one token after the other.

Nothing here knows torch or the package's own terms. A `Hand` is one trajectory as its rows of numbers; `Token` is one
trained token at the moment of the loss. What they give is compared with the package's tensors elsewhere.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from searchr1.types import Sample


@dataclass(frozen=True)
class Hand:
    """One trajectory: what each of its policy tokens earned, was sampled with, and is said to be by the models."""

    reward: float
    group: str
    earned: list[float]
    """What stands on each token; adds up to ``reward``."""
    behaviour: list[float]
    trainer: list[float]
    reference: list[float]
    values: list[float]
    actions: list[int]
    """Number of the action that each token belongs to, from 0."""


def draw(rng: random.Random, *, turns: bool = True) -> list[Hand]:
    """A step of some trajectories, with groups of one, flat groups and rewards of turns; all numbers are binary
    fractions, so that single precision holds them exactly."""
    hands = []
    for _ in range(rng.randint(1, 8)):
        length = rng.randint(1, 5)
        actions = [0]
        for _ in range(length - 1):
            actions.append(actions[-1] + rng.randint(0, 1))
        last = [i for i in range(length) if i + 1 == length or actions[i + 1] != actions[i]]
        earned = [0.0] * length
        if turns:
            for i in last:
                earned[i] = rng.choice([0.0, 0.0, 0.25, -0.5])
        earned[-1] += rng.choice([0.0, 0.0, 1.0, 0.75])
        old = [-rng.randint(1, 200) / 64 for _ in range(length)]
        near = [[p + rng.randint(-30, 30) / 64 for p in old] for _ in range(2)]
        values = [rng.randint(-64, 64) / 64 for _ in range(length)]
        hands.append(Hand(sum(earned), rng.choice("abc"), earned, old, near[0], near[1], values, actions))
    return hands


def as_sample(hand: Hand, rng: random.Random | None = None) -> Sample:
    """The same as a `Sample`: a prompt, and an observation of one to three tokens between two actions."""
    rng = rng or random.Random(0)
    ids, mask, logprobs, paid = [rng.randrange(9)], [False], [0.0], []
    for i, (action, logprob) in enumerate(zip(hand.actions, hand.behaviour, strict=True)):
        if i and action != hand.actions[i - 1]:
            width = rng.randint(1, 3)
            ids += [rng.randrange(9) for _ in range(width)]
            mask += [False] * width
            logprobs += [0.0] * width
        if i + 1 < len(hand.earned) and hand.earned[i]:
            paid.append((len(ids), hand.earned[i]))
        ids.append(rng.randrange(9))
        mask.append(True)
        logprobs.append(logprob)
    return Sample(tuple(ids), tuple(mask), tuple(logprobs), hand.reward, hand.group, turn_rewards=tuple(paid))


# Advantages: lists of one list a trajectory, one number a policy token.


def kl(kind: str, p: float, q: float) -> float:
    """http://joschu.net/blog/kl-approx.html with log-probabilities p and q."""
    return {"k1": p - q, "k2": 0.5 * (p - q) ** 2, "k3": math.exp(q - p) - 1.0 - (q - p)}[kind]


def costly(hands: Sequence[Hand], kind: str, coefficient: float, *, trainer: bool = False) -> list[list[float]]:
    """What every token earned, less the cost of KL."""
    rows = []
    for hand in hands:
        old = hand.trainer if trainer else hand.behaviour
        costs = [coefficient * kl(kind, p, q) for p, q in zip(old, hand.reference, strict=True)]
        rows.append([r - c for r, c in zip(hand.earned, costs, strict=True)])
    return rows


def spread(hands: Sequence[Hand], numbers: Sequence[float]) -> list[list[float]]:
    return [[number] * len(hand.earned) for hand, number in zip(hands, numbers, strict=True)]


def grpo(hands: Sequence[Hand], rewards: Sequence[float], *, std: bool) -> list[float]:
    """arXiv 2402.03300, section 4.1.2; a trajectory that has no other to be compared with keeps its reward."""
    advantages = []
    for hand, reward in zip(hands, rewards, strict=True):
        group = [r for other, r in zip(hands, rewards, strict=True) if other.group == hand.group]
        if len(group) == 1:
            advantages.append(reward)
            continue
        mean = math.fsum(group) / len(group)
        deviation = math.sqrt(math.fsum((r - mean) ** 2 for r in group) / (len(group) - 1))
        advantages.append((reward - mean) / (deviation + 1e-6) if std else reward - mean)
    return advantages


def rloo(hands: Sequence[Hand], rewards: Sequence[float]) -> list[float]:
    """arXiv 2402.14740: r_i - 1/(k-1) sum over j != i of r_j."""
    advantages = []
    for i, hand in enumerate(hands):
        others = [rewards[j] for j in range(len(hands)) if j != i and hands[j].group == hand.group]
        advantages.append(rewards[i] - (math.fsum(others) / len(others) if others else 0.0))
    return advantages


def gae(rewards: Sequence[float], values: Sequence[float], gamma: float, lam: float) -> list[float]:
    """arXiv 1506.02438, eq. 16, as the sum that it is: the (gamma lambda)^l weighted deltas that follow."""
    following = [*values[1:], 0.0]
    deltas = [r + gamma * n - v for r, v, n in zip(rewards, values, following, strict=True)]
    return [math.fsum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, len(deltas))) for t in range(len(deltas))]


def whitened(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    flat = [x for row in rows for x in row]
    if len(flat) < 2:
        return [list(row) for row in rows]
    mean = math.fsum(flat) / len(flat)
    variance = math.fsum((x - mean) ** 2 for x in flat) / (len(flat) - 1)
    return [[(x - mean) / math.sqrt(variance + 1e-8) for x in row] for row in rows]


# Losses and their gradients.


@dataclass(frozen=True)
class Token:
    """One trained token: what it was, what it is now, and its trajectory's numbers."""

    sample: int
    action: int
    advantage: float
    behaviour: float
    trainer: float
    reference: float
    new: float
    entropy: float
    value: float
    old_value: float
    ret: float
    weight: float


def draw_tokens(rng: random.Random) -> list[Token]:
    """Some trajectories of some actions; a fifth of the tokens is exactly as likely as when it was sampled."""
    made, action = [], -1
    for sample in range(rng.randint(1, 5)):
        advantage, weight = rng.choice([rng.uniform(-2, 2), 0.0, 1.5, -1.5]), rng.choice([1.0, 1.0, 0.5, 2.0])
        for _ in range(rng.randint(1, 3)):
            action += 1
            for _ in range(rng.randint(1, 4)):
                behaviour = -rng.uniform(0.1, 3)
                trainer = behaviour + rng.gauss(0, 0.3)
                old = rng.choice([behaviour, trainer])
                new = old if rng.random() < 0.2 else old + rng.gauss(0, 0.5)
                value = rng.uniform(-1, 1)
                made.append(
                    Token(
                        sample, action, advantage, behaviour, trainer, new + rng.gauss(0, 0.5), new,
                        rng.uniform(0, 2), value, value + rng.gauss(0, 0.4), rng.uniform(-1, 1), weight,
                    )
                )  # fmt: skip
    return made


@dataclass(frozen=True)
class HandLoss:
    """A loss, its derivatives by log-probability, entropy and value of every token, and its metrics."""

    loss: float
    by_logprob: list[float]
    by_entropy: list[float]
    by_value: list[float]
    metrics: dict[str, float]


def loss_by_hand(
    name: str, options: Mapping[str, Any], batch: Sequence[Token], total_tokens: int, total_samples: int
) -> HandLoss:
    """The loss of the algorithm called ``name`` with every option in ``options`` (all of them given)."""
    o, count = options, range(len(batch))
    corrected = o["correction"] != "off"
    old = [t.trainer if corrected else t.behaviour for t in batch]
    same = {t.sample: [u for u in count if batch[u].sample == t.sample] for t in batch}
    acts = {t.action: [u for u in count if batch[u].action == t.action] for t in batch}
    share = [
        t.weight
        / {
            "token": total_tokens,
            "sequence": len(same[t.sample]) * total_samples,
            "fixed": o["fixed_tokens"] * total_samples,
        }[o["aggregate"]]
        for t in batch
    ]
    loss, metrics = 0.0, {"clip_fraction": 0.0, "llds": 0.0}
    gradient, entropy_gradient, value_gradient = ([0.0] * len(batch) for _ in range(3))
    for u, t in enumerate(batch):
        own = same[t.sample]
        factor = share[u] * (_correction(o, batch, own, t) if corrected else 1.0)
        surrogate, slope, clipped = _surrogate(name, o, batch, old, own, u)
        loss += factor * surrogate
        for v, by in slope.items():
            gradient[v] += factor * by
        metrics["clip_fraction"] += clipped / total_tokens
        fall = old[u] - t.new
        part = acts[t.action] if o["llds_gate"] == "action" else own
        gate = math.fsum(old[v] - batch[v].new for v in part) > 0
        if gate and t.advantage >= 0 and fall > 0:
            metrics["llds"] += fall / total_tokens
            loss += o["llds"] * t.weight * fall / total_tokens
            gradient[u] -= o["llds"] * t.weight / total_tokens
        loss -= o["entropy_bonus"] * share[u] * t.entropy
        entropy_gradient[u] -= o["entropy_bonus"] * share[u]
        if o["kl"] != "off" and o["kl_in"] == "loss":
            loss += o["kl_coefficient"] * share[u] * kl(o["kl"], t.new, t.reference)
            d = t.reference - t.new
            gradient[u] += o["kl_coefficient"] * share[u] * {"k1": 1.0, "k2": -d, "k3": 1 - math.exp(d)}[o["kl"]]
        if name == "ppo":
            value, by = _value(t, o["value_clip"])
            loss += o["value_coefficient"] * t.weight * value / total_tokens
            value_gradient[u] += o["value_coefficient"] * t.weight * by / total_tokens
    metrics |= {
        "entropy": math.fsum(t.entropy for t in batch) / total_tokens,
        "kl": math.fsum(kl("k3", t.behaviour, t.new) for t in batch) / total_tokens,
        "good_tokens": math.fsum(t.advantage > 0 for t in batch) / total_tokens,
        "good_logprob": math.fsum(t.new for t in batch if t.advantage > 0) / total_tokens,
        "difference_max": max(abs(t.new - t.behaviour) for t in batch),
        "ratio_max": max(math.exp(t.new - p) for t, p in zip(batch, old, strict=True)),
    }
    if o["kl"] != "off":
        metrics["reference_kl"] = math.fsum(kl("k3", t.new, t.reference) for t in batch) / total_tokens
    return HandLoss(loss, gradient, entropy_gradient, value_gradient, metrics)


def _surrogate(
    name: str, o: Mapping[str, Any], batch: Sequence[Token], old: Sequence[float], own: Sequence[int], u: int
) -> tuple[float, dict[int, float], bool]:
    """Loss of token ``u``, its derivatives by log-probability of which tokens, and whether a clip decided it."""
    t = batch[u]
    ratio = math.exp(t.new - old[u])
    if name in ("rloo", "reinforce"):  # arXiv 1802.01561: a truncated weight, and nothing flows through it
        weight = min(ratio, o["importance_cap"])
        return -weight * t.advantage * t.new, {u: -weight * t.advantage}, ratio > o["importance_cap"]
    low, high = 1 - o["clip_low"], 1 + o["clip_high"]
    if name == "cispo":  # arXiv 2506.13585, eq. 4 and 5
        weight = min(max(ratio, low), high)
        return -weight * t.advantage * t.new, {u: -weight * t.advantage}, not low <= ratio <= high
    moved = {u: ratio}
    if name == "gspo":  # arXiv 2507.18071, eq. 5 to 7
        ratio = math.exp(math.fsum(batch[v].new - old[v] for v in own) / len(own))
        moved = dict.fromkeys(own, ratio / len(own))
    bounded = min(max(ratio, low), high)
    objective = min(ratio * t.advantage, bounded * t.advantage)  # arXiv 1707.06347, eq. 7
    clipped = bounded * t.advantage < ratio * t.advantage
    if o["dual_clip"] and t.advantage < 0 and objective < o["dual_clip"] * t.advantage:  # arXiv 1912.09729, eq. 5
        objective, clipped = o["dual_clip"] * t.advantage, True
    return -objective, {} if clipped else {v: -by * t.advantage for v, by in moved.items()}, clipped


def _correction(o: Mapping[str, Any], batch: Sequence[Token], own: Sequence[int], t: Token) -> float:
    """Weight of a token whose sampler was not the trainer."""
    if o["correction"] == "token":
        return min(math.exp(t.trainer - t.behaviour), o["correction_cap"])
    geometric = math.prod(math.exp(batch[v].trainer - batch[v].behaviour) for v in own) ** (1 / len(own))
    return 1.0 if 1 / o["correction_cap"] <= geometric <= o["correction_cap"] else 0.0


def _value(t: Token, clip: float) -> tuple[float, float]:
    """Value loss of a token and its derivative by the value."""
    plain, by = 0.5 * (t.value - t.ret) ** 2, t.value - t.ret
    if not clip:
        return plain, by
    bounded = min(max(t.value, t.old_value - clip), t.old_value + clip)
    other = 0.5 * (bounded - t.ret) ** 2
    return (other, 0.0 if bounded != t.value else by) if other > plain else (plain, by)
