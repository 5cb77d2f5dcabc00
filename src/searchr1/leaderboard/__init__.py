"""One table of many evaluations, with intervals and with what is not significantly different marked as such."""
