"""The commands of ``searchr1``, one file a group. Heavy imports stay inside the functions: ``--help`` is instant."""
