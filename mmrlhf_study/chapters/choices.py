"""From several answers and a score for each to the pairs that preference training reads.

Equal answers count once. A blank answer is below all others, whatever its score; an answer that was cut off is never
the better one, because training on it would teach to stop there. K answers.
"""

from collections.abc import Sequence
from itertools import permutations
from math import inf
from typing import NamedTuple

from mmrlhf_core.data.records import Query
from mmrlhf_core.training.dataset import RankedRow

PAIR_CHOICES = ("hardest", "all")  # best against worst; every two of different score
WITHOUT = ("one answer", "tie", "nothing to choose")  # why a query gives no pair


class Chosen(NamedTuple):
    """Pairs of one query as places in its answers; `without` says why there is none."""

    pairs: tuple[tuple[int, int], ...]
    without: str = ""


def choose(
    texts: Sequence[str], finished: Sequence[bool], scores: Sequence[float], how: str = "hardest", tie: float = 0.0
) -> Chosen:
    """(better, worse) places of K answers whose scores are more than `tie` apart.

    Of equal answers the first stands for all, and of equal scores the first is taken.
    """
    if how not in PAIR_CHOICES or tie < 0:
        raise ValueError(
            f"Pairs {how!r} with ties up to {tie} are not known; give {' or '.join(PAIR_CHOICES)} and 0 or more."
        )
    if not len(texts) == len(finished) == len(scores):
        raise ValueError(f"{len(texts)} answers, {len(finished)} ends and {len(scores)} scores; give one for each.")
    kept = [k for k, text in enumerate(texts) if text not in texts[:k]]
    value = {k: scores[k] if texts[k].strip() else -inf for k in kept}
    good = [k for k in kept if finished[k] and value[k] > -inf]
    if len(kept) < 2:
        return Chosen((), "one answer")
    if not good:
        return Chosen((), "nothing to choose")
    if how == "all":
        pairs = [(a, b) for a, b in permutations(kept, 2) if a in good and value[a] - value[b] > tie]
    else:
        best, worst = max(good, key=value.get), min(kept, key=value.get)
        pairs = [(best, worst)] if value[best] - value[worst] > tie else []
    return Chosen(tuple(pairs), "" if pairs else "tie")


def row(query: Query, texts: Sequence[str], pairs: Sequence[tuple[int, int]]) -> RankedRow:
    """A query with those of its answers that stand in some pair; without pairs it keeps one, which teaches nothing."""
    used = list(dict.fromkeys(k for pair in pairs for k in pair)) or [0]
    return RankedRow(
        id=query.id,
        prompt=query.prompt,
        modality=query.modality,
        media=query.media,
        responses=tuple(texts[k] for k in used),
        winners=tuple(used.index(better) for better, _ in pairs),
        losers=tuple(used.index(worse) for _, worse in pairs),
    )
