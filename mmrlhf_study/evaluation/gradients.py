"""Why the log-probability of chosen responses falls: what one gradient step does to both responses of a pair.

With g_w = ∇ log π(y_w|x), g_l = ∇ log π(y_l|x) and h of eq. 4, an SGD step of size η on eq. 4 moves the weights by
η β σ(−β h) (g_w − g_l), and to first order

    Δ log π(y_w) = η β σ(−β h) (g_w·g_w − g_w·g_l)
    Δ log π(y_l) = η β σ(−β h) (g_w·g_l − g_l·g_l).

To first order, their difference grows by η β σ(−β h) |g_w − g_l|² ≥ 0. The chosen response itself falls whenever
g_w·g_l > g_w·g_w: then the rejected gradient outweighs the chosen one. Shapes: M responses.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmrlhf_core.ranked.batch import RankedQuery, Tree, build_tree
from mmrlhf_core.ranked.logps import response_logps


class PairStep(NamedTuple):
    """Gradient products of one pair, and the measured changes by a small step, divided by its strength.

    The strength of a step is its factor η β σ(−β h).
    """

    ww: float  # g_w·g_w
    wl: float  # g_w·g_l
    ll: float  # g_l·g_l
    chosen: float  # measured change of log π(y_w)
    rejected: float  # measured change of log π(y_l)


def _gradient(value: Tensor, weights: Sequence[nn.Parameter]) -> list[Tensor]:
    parts = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(w) if part is None else part for w, part in zip(weights, parts, strict=True)]


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return sum(float((x.double() * y.double()).sum()) for x, y in zip(a, b, strict=True))


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [weight for weight in model.parameters() if weight.requires_grad]


@torch.no_grad()
def _changes(model: nn.Module, tree: Tree, direction: Sequence[Tensor], sums: Tensor, strength: float) -> Tensor:
    """Change of all sums [M] by a step of `strength` along `direction`, over the strength; the weights are restored."""
    weights = _trained(model)
    before = [weight.to("cpu", copy=True) for weight in weights]
    for weight, part in zip(weights, direction, strict=True):
        weight.add_(part, alpha=strength)
    changes = (response_logps(model, tree).sums - sums) / strength
    for weight, value in zip(weights, before, strict=True):
        weight.copy_(value)
    return changes


def pair_step(model: nn.Module, query: RankedQuery, pair: int = 0, strength: float = 1e-6) -> PairStep:
    """Effect of a step on one pair of a query; the weights are restored."""
    weights = _trained(model)
    tree, (winner, loser) = build_tree([query]).to(weights[0].device), query.pairs[pair]
    sums = response_logps(model, tree).sums
    g_w, g_l = _gradient(sums[winner], weights), _gradient(sums[loser], weights)
    products = _dot(g_w, g_w), _dot(g_w, g_l), _dot(g_l, g_l)
    for w, lose in zip(g_w, g_l, strict=True):
        w.sub_(lose)
    changes = _changes(model, tree, g_w, sums.detach(), strength)
    return PairStep(*products, float(changes[winner]), float(changes[loser]))


def joint_step(model: nn.Module, queries: Sequence[RankedQuery], strength: float = 1e-6) -> list[tuple[float, float]]:
    """Changes of (log π(y_w), log π(y_l)) of each query's first pair by one small step on all these pairs together.

    Divided by the strength; the weights are restored.
    """
    weights = _trained(model)
    tree = build_tree(queries).to(weights[0].device)
    first = [tree.pairs[tree.query_of_pair == number][0] for number in range(len(queries))]
    winners, losers = torch.stack(first).unbind(1)
    sums = response_logps(model, tree).sums
    direction = _gradient((sums[winners] - sums[losers]).sum(), weights)
    changes = _changes(model, tree, direction, sums.detach(), strength)
    return list(zip(changes[winners].tolist(), changes[losers].tolist(), strict=True))
