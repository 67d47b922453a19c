"""Names that belong together, directly or through others."""

from collections.abc import Iterable, Sequence


def heads(together: Iterable[Sequence[str]]) -> dict[str, str]:
    """For each name in lists of names that belong together: the first in order of all that hang together with it."""
    parent: dict[str, str] = {}

    def head(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = name = parent[parent[name]]
        return name

    for names in together:
        for name in names:
            low, high = sorted((head(names[0]), head(name)))
            parent[high] = low
    return {name: head(name) for name in parent}
