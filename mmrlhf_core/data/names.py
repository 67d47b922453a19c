"""Names in files and calls, compared with the known names."""

import difflib
from collections.abc import Iterable


class NamesError(ValueError):
    """A name is unknown or missing; the message gives it, and the nearest known name."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """' Did you mean X?' for the closest allowed name, or the list of all when none is close."""
    options = sorted(allowed)
    close = difflib.get_close_matches(name, options, n=1)
    return f"Did you mean {close[0]!r}?" if close else "Known here: " + ", ".join(options) + "."


def check_names(where: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse unknown and missing names, with the nearest valid one."""
    given, known = list(given), list(known)
    for key in given:
        if key not in known:
            raise NamesError(f"{where}: unknown name {key!r}. {nearest(str(key), known)}")
    for key in known:
        if key not in given:
            raise NamesError(f"{where}: {key!r} is missing. Every name of the section has to be given.")
