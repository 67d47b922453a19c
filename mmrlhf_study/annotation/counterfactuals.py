"""Annotated data counted, and changed on purpose: labels by coin and other pictures, as controls of an experiment."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random

import pandas as pd

from mmrlhf_core.data.annotated import Annotated
from mmrlhf_core.data.records import SPLITS, Query
from mmrlhf_study.annotation.pairs import clusters


def counts(data: Sequence[Annotated]) -> pd.DataFrame:
    """Queries, responses, pairs and ties of every part."""
    names = ("responses", "pairs", "ties")
    rows = [(one.split, 1, *(len(getattr(one, name)) for name in names)) for one in data]
    made = pd.DataFrame(rows, columns=["part", "queries", *names]).groupby("part").sum()
    return made.reindex([name for name in SPLITS if name in made.index])


def coin_labels(data: Iterable[Annotated], seed: int) -> list[Annotated]:
    """The same queries, each pair turned around or not by a coin: there is nothing left to learn from them."""
    found = []
    for one in data:
        rng = Random(f"labels {seed} {one.query.id}")
        turned = (replace(p, chosen=p.rejected, rejected=p.chosen) if rng.random() < 0.5 else p for p in one.pairs)
        found.append(replace(one, pairs=tuple(turned)))
    return found


def other_pictures(data: Sequence[Annotated], seed: int) -> list[Annotated]:
    """The same queries, each with the pictures of another one of the same kind (modality, number, folder).

    Near-duplicates are no other pictures. A query whose pictures are the only ones of their kind is left out.
    """
    cluster = clusters([one.query for one in data])
    kinds: dict[tuple, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for query in (one.query for one in data if one.query.media):
        kinds[_kind(query)].setdefault(cluster[query.id], query.media)
    after = {}
    for kind, media in kinds.items():
        order = Random(f"pictures {seed} {kind}").sample(sorted(media), len(media))
        after |= {(kind, name): media[other] for name, other in zip(order, [*order[1:], order[0]], strict=True)}
    moved = [one for one in data if len(kinds.get(_kind(one.query), ())) > 1]
    return [replace(o, query=replace(o.query, media=after[_kind(o.query), cluster[o.query.id]])) for o in moved]


def _kind(query: Query) -> tuple[str, int, str]:
    """What two queries share whose pictures can be exchanged; a clip may have any number of frames."""
    return query.modality, len(query.media) * (query.modality != "video"), "".join(query.media[:1]).partition("/")[0]
