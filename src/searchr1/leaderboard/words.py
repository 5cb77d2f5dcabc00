"""What every format says alike: names of columns, numbers, the legend."""

from __future__ import annotations

from searchr1.leaderboard.board import AVERAGE, COSTS, Board, Cell, Line

TITLES = {
    "nq": "NQ",
    "triviaqa": "TriviaQA",
    "popqa": "PopQA",
    "hotpotqa": "HotpotQA",
    "2wikimultihopqa": "2Wiki",
    "musique": "MuSiQue",
    "bamboogle": "Bamboogle",
    AVERAGE: "average",
}
METRICS = {"exact_match": "exact match", "f1": "F1", "cover_match": "cover match"}
COST_HEADS = ("searches", "policy tokens", "retrieved tokens", "seconds")
"""Of `COSTS`, in its order."""
COST_COLUMNS = (*COST_HEADS, *(f"{head} / right" for head in COST_HEADS), "seeds", "failed")


def title(dataset: str) -> str:
    return TITLES.get(dataset, dataset)


def headline(board: Board) -> str:
    """
    >>> headline(Board("f1", {"nq": 3610, "popqa": 14267}, (), ()))
    'F1 on 17,877 questions, %'
    """
    return f"{METRICS[board.metric].capitalize()} on {sum(board.questions.values()):,} questions, %"


def points(value: float) -> str:
    """
    >>> points(0.4321)
    '43.2'
    """
    return f"{100 * value:.1f}"


def cost_cells(line: Line) -> list[str]:
    """The cells of `COST_COLUMNS`; a dash where nothing is known."""
    costs = [line.costs[name] for name in COSTS]
    each = [_number(cost.per_question if cost else None) for cost in costs]
    right = [_number(cost.per_correct if cost else None) for cost in costs]
    failed = f"{line.failed:,}{' !' if line.many_failures else ''}"
    return [*each, *right, str(len(line.entry.seeds)), failed]


def legend(board: Board, bold: str, mark: str) -> list[str]:
    """What the marks mean, in whole sentences. ``bold`` and ``mark`` say how this format shows best and tied."""
    sentences = [
        f"{bold}: best of its column; {mark}: not significantly different from it (paired on the common questions, 5%, "
        "Holm's correction within the column).",
        "Intervals: 95%, over questions" + (", and over seeds where there are several." if _pooled(board) else "."),
        "Searches, tokens and seconds are means per question; '/ right': for each right answer (exact match).",
    ]
    if len(board.questions) > 1:
        sentences.append("Average: unweighted over the sets.")
    if any(line.many_failures for line in board.lines):
        sentences.append("!: more than 1% failed; failures are left out of every score.")
    return sentences


def best_and_tied(cell: Cell, text: str, bold: tuple[str, str], mark: str) -> str:
    """``text`` within ``bold`` for the best, with ``mark`` after it for what is tied with the best."""
    return f"{bold[0]}{text}{bold[1]}" if cell.best else f"{text}{mark}" if cell.tied else text


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _pooled(board: Board) -> bool:
    return any(len(line.entry.seeds) > 1 for line in board.lines)
