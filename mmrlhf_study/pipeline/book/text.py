"""Markdown of the book: text that is shown as it is written, and tables."""

from collections.abc import Iterable, Sequence


def plain(text: str) -> str:
    """Text on one line of Markdown, in a table too: shown as it is written."""
    for sign in ("\\", "|", "$", "<", "*", "_", "`", "[", "{", "~"):
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\n", " ")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table of ready cells."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
