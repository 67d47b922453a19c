"""Tables as the harnesses write them: CSV, the first sheet of an XLSX file, and nested JSON laid flat."""

import csv
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mmrlhf_core.data import storage

MAX_SHEET = 2**28  # bytes of XML read from one file
_SPACE = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


class SheetError(ValueError):
    """A file is no table."""


def read(file: Path) -> list[dict[str, Any]]:
    """The rows of a table by the names in its first line; a JSON object is one row with its paths as names."""
    try:
        if file.suffix == ".csv":
            with open(file, encoding="utf-8-sig", newline="") as stream:
                return list(csv.DictReader(stream, restkey="", restval=""))
        if file.suffix == ".xlsx":
            return _named(_cells(file))
        return _flat(storage.read_json(file))
    except (csv.Error, UnicodeDecodeError, zipfile.BadZipFile, ElementTree.ParseError, KeyError, IndexError) as error:
        raise SheetError(f"{file} is no readable {file.suffix[1:]} table ({error}); write it again.") from error


def _flat(value: Any) -> list[dict[str, Any]]:
    """Objects with their nested names joined by `/`; a list is a table of objects."""
    rows = value if isinstance(value, list) else [value]
    if not all(isinstance(row, dict) for row in rows):
        raise SheetError("This JSON file holds no object and no list of objects, so it is no table.")
    return [dict(_paths(row, "")) for row in rows]


def _paths(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield path, value
        return
    for name, inner in value.items():
        yield from _paths(inner, f"{path}/{name}" if path else str(name).replace("|", "/"))


def _named(cells: list[dict[int, Any]]) -> list[dict[str, Any]]:
    """Rows by the names of the first one."""
    if not cells:
        return []
    names = {column: str(name) for column, name in cells[0].items()}
    return [{name: row.get(column, "") for column, name in names.items()} for row in cells[1:]]


def _cells(file: Path) -> list[dict[int, Any]]:
    """The cells of the first sheet, each row by number of the column."""
    with zipfile.ZipFile(file) as book:
        names = sorted(name for name in book.namelist() if re.fullmatch(r"xl/worksheets/sheet\d+\.xml", name))
        shared = []
        if "xl/sharedStrings.xml" in book.namelist():
            shared = ["".join(text.itertext()) for text in _xml(book, "xl/sharedStrings.xml").iter(f"{_SPACE}si")]
        return [_row(row, shared) for row in _xml(book, names[0]).iter(f"{_SPACE}row")]


def _xml(book: zipfile.ZipFile, name: str) -> ElementTree.Element:
    """One part of the book, refused when it is too large or declares entities."""
    if book.getinfo(name).file_size > MAX_SHEET:
        raise SheetError(f"{name} is over {MAX_SHEET:,} bytes; export the table as CSV.")
    data = book.read(name)
    if b"<!DOCTYPE" in data[:1024] or b"<!ENTITY" in data:
        raise SheetError(f"{name} declares entities, which no spreadsheet program writes; export the table as CSV.")
    return ElementTree.fromstring(data)


def _row(row: ElementTree.Element, shared: list[str]) -> dict[int, Any]:
    """The values of one row; without an address a cell stands right of the one before."""
    found: dict[int, Any] = {}
    column = -1
    for cell in row.iter(f"{_SPACE}c"):
        letters = re.match(r"[A-Z]+", cell.get("r", ""))
        column = column + 1 if letters is None else _number(letters[0])
        found[column] = _value(cell, shared)
    return found


def _number(letters: str) -> int:
    """0 for A, 25 for Z, 26 for AA."""
    number = 0
    for letter in letters:
        number = 26 * number + ord(letter) - ord("A") + 1
    return number - 1


def _value(cell: ElementTree.Element, shared: list[str]) -> str:
    """The text of a cell."""
    if cell.get("t") == "inlineStr":
        return "".join(cell.itertext())
    text = cell.findtext(f"{_SPACE}v", "")
    return shared[int(text)] if cell.get("t") == "s" and text else text
