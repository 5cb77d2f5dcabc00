"""Alarms: what says that a run is going wrong, and what is done about it. Pure functions of rows of ``metrics.jsonl``.

rows of metrics.jsonl --check--> alarms --respond--> rows of alarms.jsonl, and: go on | stop | roll back to step N
"""
