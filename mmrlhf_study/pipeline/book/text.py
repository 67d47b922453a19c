"""Markdown of the book: text that is shown as it is written, tables, and references to papers."""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

BIBLIOGRAPHY = Path(__file__).with_name("references.bib")
PAPER = re.compile(r"(`+[^`]*`+)|(?<![/\[\d.])(?:arXiv[: ] ?)?(\d{4}\.\d{5})(?!\d)")


def plain(text: str) -> str:
    """Text on one line of Markdown, in a table too: shown as it is written."""
    for sign in ("\\", "|", "$", "<", "*", "_", "`", "[", "{", "~"):
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\n", " ")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table of ready cells."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


@cache
def _keys() -> dict[str, str]:
    """Keys of the bibliography by arXiv number."""
    entries = BIBLIOGRAPHY.read_text(encoding="utf-8").split("@")
    pairs = ((re.search(r"eprint=\{(.*?)\}", entry), re.match(r"\w+\{(\w+),", entry)) for entry in entries)
    return {number[1]: key[1] for number, key in pairs if number and key}


def cited(text: str) -> str:
    """The text with arXiv numbers as references to the page of sources; code and unknown numbers stay."""

    def reference(match: re.Match[str]) -> str:
        key = _keys().get(match[2] or "")
        return f"{{cite:t}}`{key}`" if key else match[0]

    return PAPER.sub(reference, text)
