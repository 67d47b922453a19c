"""Notebook runner, notebook cleaner, report index."""
