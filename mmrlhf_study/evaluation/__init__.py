"""Metrics with intervals: what a model got right, and how sure that is."""
