"""Agents: question -> trajectory, one coroutine each. A new one is one file here and one line in `AGENTS`."""

from __future__ import annotations

from importlib import import_module

from searchr1.agents.budget import Budget
from searchr1.errors import UserError, nearest
from searchr1.ports import Agent, Dialogue, Tokenizer

AGENTS: dict[str, str] = {
    "search_r1": "searchr1.agents.search_r1:SearchR1",
    "direct": "searchr1.agents.direct:Direct",
    "rag": "searchr1.agents.rag:Rag",
}


def build_agent(name: str, protocol: Dialogue, tokenizer: Tokenizer, budget: Budget) -> Agent:
    """The agent called ``name``. Raises ``UserError`` for an unknown name."""
    if name not in AGENTS:
        raise UserError(f"unknown agent {name!r}{nearest(name, AGENTS)}")
    module, _, cls = AGENTS[name].partition(":")
    agent: Agent = getattr(import_module(module), cls)(protocol, tokenizer, budget)
    return agent
