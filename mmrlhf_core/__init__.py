"""MM-RLHF compendium: the small tested library the chapters call."""

__version__ = "0.1.0"
