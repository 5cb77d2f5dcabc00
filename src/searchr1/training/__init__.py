"""Training: samples are packed into rows, scored by the policy, and one optimiser step is made of the loss.

The loss arrives as a callable, so nothing here knows an algorithm. Import the module you need (``packing``,
``logprobs``, ``policy``, ``checkpoint``): this package imports nothing by itself, torch included.
"""
