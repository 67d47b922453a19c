"""Ranked-tree batches, one shared prefix and K responses, with exact log-probabilities."""
