"""Trainers, reference log-probabilities and distributed launch."""
