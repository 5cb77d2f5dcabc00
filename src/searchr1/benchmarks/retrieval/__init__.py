"""Search beside its peers: cost, memory, building, serving and growth."""
