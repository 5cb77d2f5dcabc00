"""Performance figures, each beside its peer in the same run. One file for each ``searchr1 bench`` command."""
