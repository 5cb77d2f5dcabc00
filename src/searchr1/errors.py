"""Every error this package raises on purpose.

    SearchR1Error
    |-- UserError              the input is wrong; the command line prints one line and exits with 2
    |-- SearchUnavailable      the search engine gave no answer after all retries
    |   `-- SearchBudgetSpent  it may not be asked any more: waiting does not help
    |-- EngineError            the generation engine failed on one request
    |-- DownloadError          a file could not be fetched, or is not what the server said
    |-- NumericalError         a loss or gradient is not finite
    `-- TrainingStopped        an alarm ended the run

A message says what was expected, what came and what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SearchR1Error(Exception):
    """Base of all errors below."""


class UserError(SearchR1Error):
    """Wrong input: a file, a key, a value. The command line exits with 2."""


class SearchUnavailable(SearchR1Error):
    """The search engine did not answer, or answered garbage, after all retries.

    Never the fault of the policy: the trajectory stops as ``search_unavailable`` and leaves loss and score.
    """


class SearchBudgetSpent(SearchUnavailable):
    """The requests or the money that the user allowed for searching are spent; training stops and can be resumed."""


class EngineError(SearchR1Error):
    """The generation engine could not serve a request."""


class DownloadError(SearchR1Error):
    """A file could not be fetched whole after all retries; what came is kept and gone on with the next time."""


class NumericalError(SearchR1Error):
    """A loss or a gradient norm is NaN or infinite; weights were not updated."""


class TrainingStopped(SearchR1Error):
    """An alarm ended the run; its message says which, and how to go on all the same."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Half a sentence for error messages that names the closest known name.

    >>> nearest("rewrad", ["reward", "steps"])
    "; did you mean 'reward'?"
    """
    options = sorted(known)
    match = difflib.get_close_matches(name, options, n=1)
    if match:
        return f"; did you mean {match[0]!r}?"
    return f"; known: {', '.join(options)}" if options else ""
