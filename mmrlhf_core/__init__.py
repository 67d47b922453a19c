"""Losses, ranked trees, models, records, rollouts and trainers of MM-RLHF, without any experiment."""

__version__ = "0.1.0"
