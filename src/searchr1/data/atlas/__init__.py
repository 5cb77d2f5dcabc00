"""The atlas: a generated encyclopedia with questions about it, any size, the same from the same seed."""
