"""Prompt templates, model configurations, loading and saving."""
