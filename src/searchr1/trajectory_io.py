"""A trajectory as one JSON row of ``trajectories/step-N.jsonl.gz``, and back, exactly.

The row holds all that is needed to render and to re-score a trajectory: token ids, who put them there, behaviour
log-probabilities, text, and the turns. ``text`` and ``pieces`` are for readers without the tokenizer; reading a row
back never uses them, so a trajectory is never decoded and encoded again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from searchr1.errors import UserError
from searchr1.ports import Tokenizer
from searchr1.types import (
    Action,
    Answer,
    Invalid,
    Passage,
    Question,
    Scored,
    Search,
    SearchOutcome,
    Segment,
    Source,
    StopReason,
    Trajectory,
    Turn,
)

REPLACEMENT = "�"
"""What a byte-level tokenizer decodes half a character to."""


def trajectory_row(
    scored: Scored, *, kind: str, step: int, tokenizer: Tokenizer, advantage: float | None, group: str
) -> dict[str, Any]:
    """The JSON row of one scored trajectory.

    ``kind`` is ``train`` or ``eval``; ``advantage`` is None where none was computed; ``group`` names the trajectories
    that were compared with it. ``turn_rewards`` is there where turns earned some of the reward.
    """
    trajectory = scored.trajectory
    question = trajectory.question
    return {
        "kind": kind,
        "step": step,
        "question": {
            "id": question.id,
            "question": question.text,
            "answers": list(question.answers),
            "dataset": question.dataset,
            "metadata": dict(question.metadata),
        },
        "segments": [_segment_row(segment, tokenizer) for segment in trajectory.segments],
        "turns": [_turn_row(turn, tokenizer) for turn in trajectory.turns],
        "answer": trajectory.answer,
        "stop": trajectory.stop.value,
        "policy_version": trajectory.policy_version,
        "seed": trajectory.seed,
        "reward": scored.reward,
        "components": dict(scored.components),
        **({"turn_rewards": list(scored.turn_rewards)} if scored.turn_rewards else {}),
        "advantage": advantage,
        "group": group,
    }


def row_to_trajectory(row: Mapping[str, Any]) -> Trajectory:
    """The trajectory that ``trajectory_row`` wrote. Raises ``UserError`` when a field is missing or garbled."""
    try:
        question = row["question"]
        return Trajectory(
            question=Question(
                id=question["id"],
                text=question["question"],
                answers=tuple(question["answers"]),
                dataset=question["dataset"],
                metadata=question["metadata"],
            ),
            segments=tuple(_read_segment(segment) for segment in row["segments"]),
            turns=tuple(_read_turn(turn) for turn in row["turns"]),
            answer=row["answer"],
            stop=StopReason(row["stop"]),
            policy_version=row["policy_version"],
            seed=row["seed"],
        )
    except KeyError as error:
        raise UserError(f"a trajectory row must have the field {error}, it has none; was it made elsewhere?") from error
    except (TypeError, ValueError) as error:
        raise UserError(f"a trajectory row is garbled: {error}; write it with searchr1, or leave it out") from error


def token_pieces(token_ids: Sequence[int], tokenizer: Tokenizer) -> list[str]:
    """One string a token, which together are ``tokenizer.decode(token_ids)``.

    A character that is spread over several tokens is shown at the token that completes it; those before it are empty:
    the four byte tokens of an emoji become ``["", "", "", "😀"]``.
    """
    text = tokenizer.decode(token_ids)
    alone = {token: tokenizer.decode([token]) for token in set(token_ids)}
    pieces = [alone[token] for token in token_ids]
    if "".join(pieces) == text:
        return pieces
    return _pieces_in_context(token_ids, text, tokenizer)


def _pieces_in_context(token_ids: Sequence[int], text: str, tokenizer: Tokenizer) -> list[str]:
    """The same for tokenizers that decode a token differently after another one (spaces, half characters).

    Decodes a short window that starts one finished token earlier and takes what the new tokens added.
    """
    pieces: list[str] = []
    start, done = 0, 0  # tokens[start:done] is the finished context, tokens[done:] is waiting to be a character
    for end in range(1, len(token_ids) + 1):
        context = tokenizer.decode(token_ids[start:done])
        window = tokenizer.decode(token_ids[start:end])
        if window.endswith(REPLACEMENT) and end < len(token_ids):
            pieces.append("")
            continue
        pieces.append(window[len(context) :])
        start, done = done, end
    if "".join(pieces) != text and pieces:  # never let the parts and the whole disagree
        pieces = [text, *[""] * (len(token_ids) - 1)]
    return pieces


def _segment_row(segment: Segment, tokenizer: Tokenizer) -> dict[str, Any]:
    pieces = token_pieces(segment.token_ids, tokenizer)
    row: dict[str, Any] = {"source": segment.source.value, "token_ids": list(segment.token_ids)}
    if segment.source is Source.POLICY:
        row["logprobs"] = list(segment.logprobs)
    return {**row, "text": "".join(pieces), "pieces": pieces}


def _read_segment(row: Mapping[str, Any]) -> Segment:
    return Segment(Source(row["source"]), tuple(row["token_ids"]), tuple(row.get("logprobs", ())))


def _turn_row(turn: Turn, tokenizer: Tokenizer) -> dict[str, Any]:
    action, text = _action_row(turn.action)
    asides = [[_segment_row(segment, tokenizer) for segment in aside] for aside in turn.asides]
    return {
        "action": action,
        "text": text,
        "search": turn.search.value,
        "passages": [{"id": p.id, "title": p.title, "text": p.text, "score": p.score} for p in turn.passages],
        "policy_tokens": turn.policy_tokens,
        "environment_tokens": turn.environment_tokens,
        "truncated": turn.truncated,
        "generate_seconds": turn.generate_seconds,
        "search_seconds": turn.search_seconds,
        "cut": turn.cut,
        **({"asides": asides} if asides else {}),
    }


def _read_turn(row: Mapping[str, Any]) -> Turn:
    return Turn(
        action=_read_action(row["action"], row["text"]),
        passages=tuple(Passage(p["id"], p["title"], p["text"], p["score"]) for p in row["passages"]),
        search=SearchOutcome(row["search"]),
        policy_tokens=row["policy_tokens"],
        environment_tokens=row["environment_tokens"],
        truncated=row["truncated"],
        generate_seconds=row["generate_seconds"],
        search_seconds=row["search_seconds"],
        cut=row.get("cut", False),
        asides=tuple(tuple(_read_segment(segment) for segment in aside) for aside in row.get("asides", ())),
    )


def _action_row(action: Action) -> tuple[str, str]:
    match action:
        case Search(query):
            return "search", query
        case Answer(text):
            return "answer", text
        case Invalid(reason):
            return "invalid", reason


def _read_action(action: str, text: str) -> Action:
    match action:
        case "search":
            return Search(text)
        case "answer":
            return Answer(text)
        case "invalid":
            return Invalid(text)
    raise ValueError(f"action must be search, answer or invalid, got {action!r}")
