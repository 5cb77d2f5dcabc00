"""Settings of every test: property tests draw the same examples everywhere and have no clock."""

from hypothesis import settings

settings.register_profile("searchr1", derandomize=True, deadline=None)
settings.load_profile("searchr1")
