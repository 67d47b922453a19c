"""Losses as pure functions, per-example tensors in and out."""
