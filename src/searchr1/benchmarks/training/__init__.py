"""One optimiser step beside its peers: see ``bench``."""
