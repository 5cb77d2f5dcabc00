"""Train language models, by reinforcement learning alone, to reason and to call a search engine."""

__version__ = "0.1.0"
