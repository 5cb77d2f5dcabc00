"""Indexes that are kept by a cluster of servers."""
