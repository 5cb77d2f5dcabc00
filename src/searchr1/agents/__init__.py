"""Agents: question -> trajectory, one coroutine each. A new one is one file here and one line in `AGENTS`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from searchr1.agents.budget import Budget
from searchr1.errors import UserError, nearest
from searchr1.ports import Agent, Dialogue, Tokenizer

AGENTS: dict[str, str] = {
    "search_r1": "searchr1.agents.search_r1:SearchR1",
    "direct": "searchr1.agents.direct:Direct",
    "cot": "searchr1.agents.cot:ChainOfThought",
    "rag": "searchr1.agents.rag:Rag",
    "ircot": "searchr1.agents.ircot:IRCoT",
    "search_o1": "searchr1.agents.search_o1:SearchO1",
    "r1": "searchr1.agents.r1:R1",
    "react": "searchr1.agents.react:React",
}


def build_agent(name: str, protocol: Dialogue, tokenizer: Tokenizer, budget: Budget) -> Agent:
    """The agent called ``name``. Raises ``UserError`` for an unknown name."""
    agent: Agent = load_agent(name)(protocol, tokenizer, budget)
    return agent


def load_agent(name: str) -> Any:
    """The class of the agent called ``name``. Raises ``UserError`` for an unknown name.

    Where it has them, ``instructions`` are what its prompts may hold, and ``closed_book`` says that it never searches.
    """
    if name not in AGENTS:
        raise UserError(f"unknown agent {name!r}{nearest(name, AGENTS)}")
    module, _, cls = AGENTS[name].partition(":")
    return getattr(import_module(module), cls)
