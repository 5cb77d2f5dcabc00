"""The supervised stages: trajectories are sampled and kept (``sampling``), policies fine-tuned on them (``learning``).

Import the module you need: this package imports nothing by itself, torch included.
"""
