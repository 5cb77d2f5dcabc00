"""Stop strings, found while tokens arrive, wherever the token boundaries fall."""

from __future__ import annotations

from collections.abc import Sequence

from searchr1.ports import Tokenizer

REPLACEMENT = "\ufffd"


class StopRule:
    """Tells whether the newest token completes one of ``stops``.

    Decoding after every token would cost more than sampling it, so a token is looked at closely only when its own text
    holds the last character of a stop string (or is part of a character that is split over tokens); each token's text
    is decoded once in the life of the rule. The stop must lie in the sampled text: one that the context began is not
    found.

    >>> from searchr1.tokenization import ByteTokenizer
    >>> rule = StopRule(("</a>",), ByteTokenizer())
    >>> [rule.completed(list(b"x</a>"[:n])) for n in range(1, 6)]
    [False, False, False, False, True]
    """

    def __init__(self, stops: Sequence[str], tokenizer: Tokenizer) -> None:
        self.stops = tuple(stop for stop in stops if stop)
        self._tokenizer = tokenizer
        self._last = frozenset(stop[-1] for stop in self.stops)
        # Some tokenizers drop white space at the start of what they decode, so a lone token cannot be trusted with it.
        self._always = any(character.isspace() for character in self._last)
        self._may_complete: dict[int, bool] = {}

    def completed(self, sampled: Sequence[int]) -> bool:
        """True when the text of ``sampled`` holds a stop string; call it after every token."""
        if not self.stops:
            return False
        token = sampled[-1]
        may = self._may_complete.get(token)
        if may is None:
            may = self._may_complete[token] = self._looks_final(token)
        if not may:
            return False
        text = self._tokenizer.decode(sampled)
        return any(stop in text for stop in self.stops)

    def _looks_final(self, token: int) -> bool:
        text = self._tokenizer.decode((token,))
        return self._always or REPLACEMENT in text or not self._last.isdisjoint(text)
