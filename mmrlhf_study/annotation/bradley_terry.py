"""Strengths of models from pairwise wins, and how the order of a judge differs from the order of people.

P(i beats j) = σ(s_i − s_j); a tie is half a win for each. Shapes: M models, Q queries.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from mmrlhf_core.data.records import Ranking
from mmrlhf_study.annotation.agreement import cells

NEWTON_STEPS = 40  # of Newton's method; it needs about 6
LIMIT = 30.0  # largest strength a bootstrap sample without a maximum can get


def wins(rankings: Iterable[Ranking], model_of: Mapping[str, str], models: Sequence[str]) -> sparse.csr_array:
    """Wins of model i over model j per ranking, ties as halves, [Q, M * M]; responses of other models are left out."""
    code = {model: i for i, model in enumerate(models)}
    cluster, column, weight = [], [], []
    for number, ranking in enumerate(rankings):
        coded = [(code.get(model_of[name]), rank) for name, rank in zip(ranking.responses, ranking.ranks, strict=True)]
        for (i, rank_i), (j, rank_j) in combinations([row for row in coded if row[0] is not None], 2):
            half = 0.5 * ((rank_i <= rank_j) + (rank_i < rank_j))
            cluster += [number, number]
            column += [i * len(models) + j, j * len(models) + i]
            weight += [half, 1 - half]
    return cells(np.array(cluster), np.array(column), np.array(weight), len(models) ** 2)


def strengths(counts: np.ndarray) -> np.ndarray:
    """Maximum-likelihood strengths with mean 0 from wins [..., M * M], by Newton's method, [..., M].

    Models that never lose to the others have no finite strength; in a bootstrap sample they get `LIMIT`.
    """
    m = round(counts.shape[-1] ** 0.5)
    w = counts.reshape(*counts.shape[:-1], m, m)
    n, s = w + np.swapaxes(w, -1, -2), np.zeros(w.shape[:-1])
    for _ in range(NEWTON_STEPS):
        p = 1 / (1 + np.exp(s[..., None, :] - s[..., :, None]))
        gradient = (w - n * p).sum(-1)
        information = n * p * (1 - p)
        hessian = np.eye(m) * information.sum(-1)[..., None] - information + 1 / m
        hessian = hessian + 1e-9 * np.eye(m)
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        s = np.clip(s + np.clip(step, -2, 2), -LIMIT, LIMIT)
        s = s - s.mean(-1, keepdims=True)
    return s


def require_connected(counts: np.ndarray, models: Sequence[str]) -> None:
    """Refuse wins that give no finite strengths: each model must beat each other one, if only through a chain."""
    graph = np.asarray(counts).reshape(len(models), len(models)) > 0
    parts, label = connected_components(graph, directed=True, connection="strong")
    if parts > 1:
        sets = [", ".join(m for m, own in zip(models, label, strict=True) if own == part) for part in range(parts)]
        raise ValueError(
            f"No finite strengths: of these sets of models one never beats another: {' | '.join(sets)}. "
            "Compare more responses or leave models out."
        )


def inversions(ranking: Ranking, scores: Mapping[str, float]) -> tuple[int, int, int]:
    """(pairs a judge orders the other way, pairs it scores equally, pairs of different rank) of one ranking."""
    other = tied = total = 0
    for (a, rank_a), (b, rank_b) in combinations(zip(ranking.responses, ranking.ranks, strict=True), 2):
        if rank_a != rank_b:
            better, worse = (a, b) if rank_a < rank_b else (b, a)
            total += 1
            other += scores[better] < scores[worse]
            tied += scores[better] == scores[worse]
    return other, tied, total


def order_agreement(scores: np.ndarray, truth: np.ndarray, queries: np.ndarray) -> float:
    """Share of pairs of one query with different `truth` that `scores` order alike, ties counting half; both [n]."""
    order = np.argsort(queries, kind="stable")
    scores, truth, queries = scores[order], truth[order], queries[order]
    hit = total = 0.0
    for step in range(1, int(np.bincount(queries).max())):
        same = queries[:-step] == queries[step:]
        right = np.sign(truth[:-step] - truth[step:])[same]
        given = np.sign(scores[:-step] - scores[step:])[same]
        total += np.count_nonzero(right)
        hit += 0.5 * np.sum((right != 0) * (1 + right * given))
    return hit / total


def curve(scores: np.ndarray, truth: np.ndarray, queries: np.ndarray, repeats: int, seed: int) -> np.ndarray:
    """Order agreement of the mean of 1, 2, .. R randomly chosen annotators with `truth`, [R, repeats].

    `scores` [n, R] holds the score that each annotator gave each response.
    """
    rng, count = np.random.default_rng(seed), scores.shape[1]
    agreement = np.empty((count, repeats))
    for i in range(repeats):
        panel = rng.permutation(count)
        running = scores[:, panel].cumsum(-1)
        agreement[:, i] = [order_agreement(running[:, m], truth, queries) for m in range(count)]
    return agreement
