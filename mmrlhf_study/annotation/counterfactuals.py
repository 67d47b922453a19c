"""Annotated data changed on purpose, as controls of an experiment: coin labels and other pictures; and its counts."""

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
    rows = [(query.split, 1, *(len(getattr(query, name)) for name in names)) for query in data]
    table = pd.DataFrame(rows, columns=["part", "queries", *names]).groupby("part").sum()
    return table.reindex([name for name in SPLITS if name in table.index])


def coin_labels(data: Iterable[Annotated], seed: int) -> list[Annotated]:
    """The same queries with each pair turned around or not by a fair coin: no preference is left to learn."""
    turned = []
    for one in data:
        rng = Random(f"labels {seed} {one.query.id}")
        pairs = (replace(p, chosen=p.rejected, rejected=p.chosen) if rng.random() < 0.5 else p for p in one.pairs)
        turned.append(replace(one, pairs=tuple(pairs)))
    return turned


def other_pictures(data: Sequence[Annotated], seed: int) -> list[Annotated]:
    """The same queries, each with the pictures of another query of the same kind (modality, number, folder).

    Pictures of near-duplicates do not count as other pictures. A query without another one of its kind is left out.
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
    """Two queries can exchange pictures if they agree in this; clips may differ in the number of frames."""
    return query.modality, len(query.media) * (query.modality != "video"), "".join(query.media[:1]).partition("/")[0]
