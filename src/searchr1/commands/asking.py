"""``ask``: one question, and what the policy makes of it, turn by turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer

from searchr1.commands.options import Agent, Engine, Retriever, Settings
from searchr1.console import say, stdout, visible
from searchr1.errors import SearchR1Error, UserError
from searchr1.types import Completion, Question, Sampling, Trajectory

if TYPE_CHECKING:
    import torch

    from searchr1.ports import Engine as EnginePort
    from searchr1.ports import Session, Tokenizer

Show = Callable[[str, str], None]
"""Called with the source (``prompt``, ``policy``, ``environment``) and the text of what was just added."""


class Overheard:
    """An engine that shows, of one trajectory, every turn as it is sampled and what the environment put before it."""

    def __init__(self, engine: EnginePort, tokenizer: Tokenizer, show: Show) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._show = show
        self._shown = 0

    def session(self) -> AbstractContextManager[Session]:
        return self._engine.session()

    async def generate(self, token_ids: Sequence[int], sampling: Sampling, *, session: Session) -> Completion:
        self._show("environment" if self._shown else "prompt", self._tokenizer.decode(token_ids[self._shown :]))
        completion = await self._engine.generate(token_ids, sampling, session=session)
        self._show("policy", self._tokenizer.decode(completion.token_ids))
        self._shown = len(token_ids) + len(completion.token_ids)
        return completion

    async def load(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        await self._engine.load(weights, version)


def ask(
    question: Annotated[str, typer.Argument(metavar="QUESTION")],
    model: Annotated[
        str, typer.Option("--model", help="A run folder, a model folder or name, or atlas-base.")
    ] = "atlas-base",
    retriever: Retriever = None,
    agent: Agent = None,
    engine: Engine = None,
    settings: Settings = None,
) -> None:
    """Answer one question, showing the reasoning, the searches and the answer."""
    from searchr1.agents import build_agent
    from searchr1.assemble import build_player, greedy
    from searchr1.commands.targets import find_target
    from searchr1.retrieval.counting import ASKED

    if not question.strip():
        raise UserError("QUESTION: expected a question, got nothing")
    changes = {"engine.name": engine, "rollout.agent": agent}
    target = find_target(model, [*(settings or []), *(f"{key}={value}" for key, value in changes.items() if value)])
    searching = target.retriever(retriever)
    asked = Question("ask", question, ("",))
    player = build_player(target.recipe, target.model, [asked])
    chosen = build_agent(target.recipe.rollout.agent, player.protocol, player.tokenizer, greedy(target.recipe.rollout))
    overheard = Overheard(player.engine, player.tokenizer, _show)

    async def answer() -> Trajectory:
        ASKED.set(asked)
        return await chosen.run(asked, engine=overheard, retriever=searching, seed=target.recipe.seed)

    started = time.perf_counter()
    played = asyncio.run(answer())
    _conclude(played, time.perf_counter() - started)


def _show(source: str, text: str) -> None:
    from searchr1.commands.paint import paint

    if text.strip():
        stdout().print(paint(source, "\n".join(line for line in text.strip().split("\n") if line.strip())))


def _conclude(played: Trajectory, seconds: float) -> None:
    from rich.text import Text

    if played.failed:
        raise SearchR1Error(f"no answer: {played.stop}; check the search engine and the model")
    answer = Text(f"no answer ({played.stop})") if played.answer is None else Text(visible(played.answer), "bold green")
    stdout().print(Text.assemble("\nanswer: ", answer))
    say(f"{played.searches} search{'es' * (played.searches != 1)}, {seconds:.1f} s", "dim")
