"""Settings of every test: property tests draw the same examples everywhere and have no clock."""

import signal

from hypothesis import settings

settings.register_profile("searchr1", derandomize=True, deadline=None)
settings.load_profile("searchr1")

# A shell that starts the tests in the background makes them, and all that they start, deaf to Ctrl-C; some send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
