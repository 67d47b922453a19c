"""The class of a query, and drawing a set of exact size evenly over clusters (arXiv 2502.10391, §2.2).

Image queries are Long : Short : MCQ = 4 : 5 : 1; video and safety stand outside that ratio.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from mmrlhf_core.data import storage
from mmrlhf_core.data.records import Query
from mmrlhf_study.curation.sources import USER

LONG = 128  # characters; the paper calls an answer long above and short below, 128 itself counts as short here
LETTERED = re.compile(r"(?:^|\s)\(?a[).:]\s.*?\s\(?b[).:]\s", re.IGNORECASE | re.DOTALL)


def category(query: Query, safety: Sequence[str] = ()) -> str:
    """Class of a query: safety, video, mcq by lettered options in its last question, else long or short by its answer.

    A query is safety when the pool says so; where the pool gives no class, when source, topic or id of the query names
    one of the kinds `safety`. Blank when a picture query has neither options nor a reference answer.
    """
    if query.category == "safety" or (not query.category and named(query, safety)):
        return "safety"
    if query.modality == "video":
        return "video"
    if LETTERED.search(query.prompt.rpartition(f"\n{USER}")[2]):
        return "mcq"
    return ("long" if len(query.answer) > LONG else "short") if query.answer.strip() else ""


def named(query: Query, kinds: Sequence[str]) -> str:
    """The first of `kinds` that is a word of the query's source, topic or id; blank when none is.

    App. C.1 composes the safety set of kinds (jailbreak, privacy, ...); the files or ids of a pool name them.
    """
    words = set(re.split(r"[^a-z0-9]+", f"{query.source} {query.topic} {query.id}".lower()))
    return next((kind for kind in kinds if kind.lower() in words), "")


def split(total: int, ratio: Sequence[int]) -> list[int]:
    """`total` in parts of this ratio, whole numbers that add up; the largest remainders are rounded up."""
    if not ratio or min(ratio) < 0 or not sum(ratio):
        raise ValueError(f"The ratio {list(ratio)} has no parts. Give whole numbers of which one is above 0.")
    exact = [total * part / sum(ratio) for part in ratio]
    parts = [int(part) for part in exact]
    late = sorted(range(len(ratio)), key=lambda i: (parts[i] - exact[i], i))
    for i in late[: total - sum(parts)]:
        parts[i] += 1
    return parts


def even(available: Mapping[int, int], total: int) -> dict[int, int]:
    """How many to take of each cluster: counts that sum to `total`, as equal as the clusters allow."""
    if total > sum(available.values()):
        raise ValueError(f"{total} are wanted and {sum(available.values())} are there. Ask for fewer.")
    taken, left = dict.fromkeys(available, 0), total
    while left:
        going = [cell for cell in available if taken[cell] < available[cell]]
        going.sort(key=lambda cell: (taken[cell] - available[cell], cell))  # the cluster with most left comes first
        share = left // len(going)
        for cell in going if share else going[:left]:
            more = min(max(share, 1), available[cell] - taken[cell])
            taken[cell] += more
            left -= more
    return taken


def draw(
    queries: Iterable[Query],
    kinds: Mapping[str, str],
    clusters: Mapping[str, int],
    counts: Mapping[str, int],
    seed: int,
) -> set[str]:
    """Ids of exactly `counts[kind]` queries per kind, drawn evenly over clusters and at random within each.

    `kinds` and `clusters` name the kind and the cluster of a query by its id; a query whose kind is not in `counts` is
    not drawn. The draw depends on a hash of seed and id, so the order of `queries` does not matter. When a kind runs
    out, the error says which and what is left.
    """
    cells: dict[str, dict[int, list[str]]] = {kind: defaultdict(list) for kind in counts}
    for query in queries:
        if (kind := kinds[query.id]) in cells:
            cells[kind][clusters[query.id]].append(query.id)
    chosen: set[str] = set()
    for kind, wanted in counts.items():
        there = {cluster: len(ids) for cluster, ids in cells[kind].items()}
        if (total := sum(there.values())) < wanted:
            each = ", ".join(f"{cluster}: {n}" for cluster, n in sorted(there.items())[:8]) or "none"
            raise ValueError(
                f"{kind!r} ran out: {wanted} queries are wanted and {total} are left (queries of the first clusters: "
                f"{each}). Ask for at most {total}, or draw a larger pool."
            )
        for cluster, n in even(there, wanted).items():
            chosen.update(sorted(cells[kind][cluster], key=lambda name: shuffled(seed, name))[:n])
    return chosen


def shuffled(seed: int, name: str) -> str:
    """A sorting key that puts names in an order fixed by `seed` alone."""
    return storage.sha256_bytes(f"{seed} {name}".encode())


def ran_short(taken: Mapping[int, int], available: Mapping[int, int]) -> list[int]:
    """Clusters that gave all their queries and still fewer than the largest share: there the draw is not even."""
    return sorted(c for c, n in taken.items() if n == available[c] and n < max(taken.values()))
