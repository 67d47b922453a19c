"""A small visual world with known ground truth."""
