"""Why the probability of chosen responses falls: what one gradient step on one pair does to both of its responses.

With g_w = ∇ log π(y_w|x) and g_l = ∇ log π(y_l|x), a plain step of size η on eq. 4 moves the weights by
η β σ(−β h) (g_w − g_l), and to first order

    Δ log π(y_w) = η β σ(−β h) (g_w·g_w − g_w·g_l)
    Δ log π(y_l) = η β σ(−β h) (g_w·g_l − g_l·g_l).

Their difference grows by |g_w − g_l|² ≥ 0 times the factor, whatever the pair. The chosen response itself falls
whenever g_w·g_l > g_w·g_w: the two responses share most of what the model would change, and the rejected one has more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmrlhf_core.ranked.batch import RankedQuery, Tree, build_tree
from mmrlhf_core.ranked.logps import response_logps


@dataclass(frozen=True)
class Forces:
    """Inner products of the two gradients of one pair, and what a step of unit strength really did."""

    ww: float
    wl: float
    ll: float
    chosen: float  # change of log π(y_w) by a small step, over its strength η β σ(−β h)
    rejected: float  # the same of log π(y_l)


def _gradient(value: Tensor, weights: Sequence[nn.Parameter]) -> list[Tensor]:
    parts = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(w) if part is None else part for w, part in zip(weights, parts, strict=True)]


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return sum(float((x.double() * y.double()).sum()) for x, y in zip(a, b, strict=True))


@torch.no_grad()
def _tried(
    model: nn.Module, tree: Tree, weights: Sequence[nn.Parameter], direction: Sequence[Tensor], sums: Tensor,
    strength: float,
) -> Tensor:  # fmt: skip
    """Change of all sums [M] by a step of `strength` along `direction`, over the strength; the weights come back."""
    kept = [weight.to("cpu", copy=True) for weight in weights]
    for weight, part in zip(weights, direction, strict=True):
        weight.add_(part, alpha=strength)
    moved = (response_logps(model, tree).sums - sums) / strength
    for weight, before in zip(weights, kept, strict=True):
        weight.copy_(before)
    return moved


def of_pair(model: nn.Module, query: RankedQuery, pair: int = 0, strength: float = 1e-6) -> Forces:
    """The forces on one pair of a query; the model keeps its weights. `strength` is η β σ(−β h) of the step tried."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    tree, (winner, loser) = build_tree([query]).to(weights[0].device), query.pairs[pair]
    sums = response_logps(model, tree).sums
    g_w, g_l = _gradient(sums[winner], weights), _gradient(sums[loser], weights)
    products = _dot(g_w, g_w), _dot(g_w, g_l), _dot(g_l, g_l)
    for w, lose in zip(g_w, g_l, strict=True):
        w.sub_(lose)
    moved = _tried(model, tree, weights, g_w, sums.detach(), strength)
    return Forces(*products, float(moved[winner]), float(moved[loser]))


def of_all(model: nn.Module, queries: Sequence[RankedQuery], strength: float = 1e-6) -> list[tuple[float, float]]:
    """Changes of (log π(y_w), log π(y_l)) of each query's first pair by one small step on all of them at once.

    Over the strength of the step; the model keeps its weights.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    tree = build_tree(queries).to(weights[0].device)
    first = [tree.pairs[tree.query_of_pair == number][0] for number in range(len(queries))]
    winners, losers = torch.stack(first).unbind(1)
    sums = response_logps(model, tree).sums
    direction = _gradient((sums[winners] - sums[losers]).sum(), weights)
    moved = _tried(model, tree, weights, direction, sums.detach(), strength)
    return list(zip(moved[winners].tolist(), moved[losers].tolist(), strict=True))
