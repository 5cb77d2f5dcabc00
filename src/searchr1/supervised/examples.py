"""What is learned from: trajectories read from files, checked to be of this tokenizer and dialogue, some held out."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from searchr1.agents.budget import Budget
from searchr1.errors import UserError
from searchr1.ports import Dialogue, Tokenizer
from searchr1.seeds import derive_seed
from searchr1.supervised.file import read_kept
from searchr1.training.samples import to_sample
from searchr1.trajectory_io import row_to_trajectory
from searchr1.types import Answer, Invalid, Sample, Scored, Search, SearchOutcome, Segment, Source, Trajectory, Turn

_NO_LIMIT = 2**31
_SHOWN = 60
_EXECUTED = (SearchOutcome.FOUND, SearchOutcome.EMPTY)


@dataclass(frozen=True)
class Examples:
    """Samples to train on and samples held out, all trajectories of a question on the same side."""

    train: tuple[Sample, ...]
    held_out: tuple[Sample, ...]

    @property
    def digest(self) -> str:
        """Tells other examples, or others held out, from these."""
        content = [[[s.group, s.token_ids, s.mask] for s in part] for part in (self.train, self.held_out)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def read_examples(
    paths: Sequence[str],
    tokenizer: Tokenizer,
    protocol: Dialogue,
    budget: Budget,
    progress: Callable[[int, int | None], None] | None = None,
) -> list[Scored]:
    """The trajectories of files, without those that failed.

    ``budget.observation_tokens`` is what the prompts of one-shot RAG were made with. Raises ``UserError`` for a
    trajectory of another tokenizer or dialogue: its tokens would mean something else to this policy.
    """
    scored: list[Scored] = []
    for number, (place, row) in enumerate((item for path in paths for item in read_kept(path)), start=1):
        trajectory, reward = _read_row(place, row)
        if not trajectory.failed:
            _check_tokenizer(place, row, trajectory, tokenizer)
            _check_dialogue(place, trajectory, tokenizer, protocol, budget)
            scored.append(reward)
        if progress is not None:
            progress(number, None)
    return scored


def divide(scored: Sequence[Scored], held_out: float, seed: int) -> Examples:
    """Samples of all trajectories with a token of the policy, ``held_out`` of the questions apart.

    At least one question is held out where ``held_out`` is above 0 and there are two. Raises ``UserError`` for no
    trajectories.
    """
    groups: dict[str, list[Sample]] = {}
    for item in scored:
        question = item.trajectory.question
        name = f"{question.dataset}/{question.id}"
        if any(item.trajectory.mask):
            groups.setdefault(name, []).append(to_sample(item, name))
    if not groups:
        raise UserError("sft: expected at least one trajectory to learn from, got none; sample with another --keep")
    names = sorted(groups)
    random.Random(derive_seed(seed, "held out")).shuffle(names)
    count = min(max(1, round(held_out * len(names))), len(names) - 1) if held_out else 0
    apart = set(names[:count])
    train = (sample for name, samples in groups.items() if name not in apart for sample in samples)
    return Examples(tuple(train), tuple(sample for name in names[:count] for sample in groups[name]))


def check_lengths(examples: Examples, micro_batch_tokens: int, model_tokens: int | None) -> None:
    """Refuse trajectories that cannot be trained on. Raises ``UserError`` naming the setting to change."""
    longest = max(len(sample.token_ids) for sample in (*examples.train, *examples.held_out))
    if model_tokens is not None and longest > model_tokens:
        raise UserError(f"sft: a trajectory of {longest} tokens does not fit the model's context of {model_tokens}")
    if longest > micro_batch_tokens:
        raise UserError(
            f"sft: a trajectory of {longest} tokens needs training.micro_batch_tokens of at least as many, got "
            f"{micro_batch_tokens}; raise it"
        )


def _read_row(place: str, row: Mapping[str, Any]) -> tuple[Trajectory, Scored]:
    try:
        trajectory = row_to_trajectory(row)
        return trajectory, Scored(trajectory, float(row["reward"]), dict(row["components"]))
    except (UserError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{place}: expected a trajectory: {error}; write it with searchr1, or leave it out") from error


def _check_tokenizer(place: str, row: Mapping[str, Any], trajectory: Trajectory, tokenizer: Tokenizer) -> None:
    """The row says what its tokens read; here they must read the same."""
    for segment, written in zip(trajectory.segments, row["segments"], strict=True):
        try:
            read, said = tokenizer.decode(segment.token_ids), written["text"]
        except (KeyError, TypeError, OverflowError) as error:  # no text; ids that are no whole numbers or negative
            raise UserError(f"{place}: expected token ids and their text in every segment: {error!r}") from error
        if read != said:
            at = next((i for i, pair in enumerate(zip(read, said, strict=False)) if len(set(pair)) > 1), 0)
            raise UserError(
                f"{place} was made with another tokenizer: its tokens read {said[at : at + _SHOWN]!r} there and "
                f"{read[at : at + _SHOWN]!r} with this model's; sample again with this model"
            )


def _check_dialogue(
    place: str, trajectory: Trajectory, tokenizer: Tokenizer, protocol: Dialogue, budget: Budget
) -> None:
    """Prompt, actions and replies must be those that this dialogue makes of the same question and passages."""
    prompts = [s for s in trajectory.segments if s.source is Source.PROMPT]
    if [prompt.token_ids for prompt in prompts] not in [[ids] for ids in _prompts(trajectory, protocol, budget)]:
        expected = tokenizer.decode(protocol.prompt(trajectory.question.text))
        written = tokenizer.decode(prompts[0].token_ids) if prompts else ""
        raise UserError(
            f"{place} was made in another dialogue: its prompt is {written[:_SHOWN]!r}, that of this recipe is "
            f"{expected[:_SHOWN]!r}; use the [protocol] it was made with, or sample again"
        )
    said = [s for s in trajectory.segments if s.source is Source.POLICY]
    for segment, turn in zip(said, trajectory.turns, strict=False):  # one-shot RAG may have a turn and nothing said
        action = protocol.parse(tokenizer.decode(segment.token_ids))
        refused = isinstance(action, Search) and isinstance(turn.action, Invalid) and turn.search in _EXECUTED
        if action != turn.action and not refused:
            text = tokenizer.decode(segment.token_ids)[-_SHOWN:]
            raise UserError(
                f"{place} was made in another dialogue: this one reads {text!r} as {action}, it was {turn.action}; "
                "use the [protocol] it was made with, or sample again"
            )
    for segment, turn in _told(trajectory):
        if not turn.truncated and segment.token_ids != _reply(turn, protocol):
            text = tokenizer.decode(segment.token_ids)[:_SHOWN]
            raise UserError(
                f"{place} was made in another dialogue: this one does not tell the policy {text!r}; "
                "use the [protocol] it was made with, or sample again"
            )


def _prompts(trajectory: Trajectory, protocol: Dialogue, budget: Budget) -> Iterator[tuple[int, ...]]:
    """The prompts of the agents: with a search engine, without, with passages."""
    text = trajectory.question.text
    yield tuple(protocol.prompt(text))
    yield tuple(protocol.prompt(text, search=False))
    passages = trajectory.turns[0].passages if trajectory.turns else ()
    if passages:
        yield tuple(protocol.prompt(text, search=False, passages=passages, budget=budget.observation_tokens))


def _told(trajectory: Trajectory) -> Iterator[tuple[Segment, Turn]]:
    """The environment's replies, each with the turn it answers."""
    replies = (segment for segment in trajectory.segments if segment.source is Source.ENVIRONMENT)
    return zip(replies, (turn for turn in trajectory.turns if turn.environment_tokens), strict=False)


def _reply(turn: Turn, protocol: Dialogue) -> tuple[int, ...]:
    if isinstance(turn.action, Search | Answer):
        return protocol.observe(turn.passages, _NO_LIMIT).token_ids
    return protocol.invalid().token_ids
