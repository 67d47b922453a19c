"""Names that belong together, directly or through others."""

from collections.abc import Iterable, Sequence

import networkx


def heads(together: Iterable[Sequence[str]]) -> dict[str, str]:
    """For each name in lists of names that belong together: the first in order of all that hang together with it."""
    graph = networkx.Graph()
    for names in together:
        networkx.add_path(graph, names)
    return {name: min(part) for part in networkx.connected_components(graph) for name in part}
