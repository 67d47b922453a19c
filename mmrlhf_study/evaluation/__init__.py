"""Metrics, intervals and tests of model answers."""
