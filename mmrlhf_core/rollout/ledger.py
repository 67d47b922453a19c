"""Results kept as they come, one line of JSON each, found again by what they depend on.

A process may die at any moment: every whole line counts, and what was in a line cut short is worked out again.
"""

import json
from pathlib import Path
from typing import Any

from mmrlhf_core.data import rows, storage


class Ledger:
    """The entries of one JSON Lines file by key; `add` has an entry in the file before it returns."""

    def __init__(self, file: str | Path) -> None:
        self.file = storage.path(file)
        self.entries: dict[str, Any] = {}
        if self.file.is_file():
            for _, row in rows.read(self.file):
                if isinstance(row, dict) and row.keys() == {"key", "value"}:
                    self.entries[row["key"]] = row["value"]

    def add(self, key: str, value: Any) -> None:
        """Append one entry; behind a line that was cut short it gets a line of its own."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"key": key, "value": value}, ensure_ascii=False, allow_nan=False) + "\n"
        with open(self.file, "ab+") as stream:
            stream.seek(max(stream.tell() - 1, 0))
            if stream.read() not in (b"", b"\n"):
                line = "\n" + line
            stream.write(line.encode())
        self.entries[key] = value
