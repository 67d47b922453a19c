"""Why the log-probability of chosen responses falls: what one gradient step does to both responses of a pair.

With g_w = ∇ log π(y_w|x) and g_l = ∇ log π(y_l|x), a plain step of size η on eq. 4 moves the weights by
η β σ(−β h) (g_w − g_l), and to first order

    Δ log π(y_w) = η β σ(−β h) (g_w·g_w − g_w·g_l)
    Δ log π(y_l) = η β σ(−β h) (g_w·g_l − g_l·g_l).

The difference of the two grows by |g_w − g_l|² ≥ 0 times the factor, for every pair. The chosen response itself falls
whenever g_w·g_l > g_w·g_w: the step on the rejected response then moves it more than its own. Shapes: M responses.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmrlhf_core.ranked.batch import RankedQuery, Tree, build_tree
from mmrlhf_core.ranked.logps import response_logps


class PairStep(NamedTuple):
    """Inner products of the gradients of one pair, and the measured effect of a small step, per unit of strength.

    The strength of a step is η β σ(−β h).
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
    """Change of all sums [M] by a step of `strength` along `direction`, over the strength; the weights come back."""
    weights = _trained(model)
    before = [weight.to("cpu", copy=True) for weight in weights]
    for weight, part in zip(weights, direction, strict=True):
        weight.add_(part, alpha=strength)
    changes = (response_logps(model, tree).sums - sums) / strength
    for weight, value in zip(weights, before, strict=True):
        weight.copy_(value)
    return changes


def pair_step(model: nn.Module, query: RankedQuery, pair: int = 0, strength: float = 1e-6) -> PairStep:
    """A step on one pair of a query alone; the model keeps its weights."""
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
    """Changes of (log π(y_w), log π(y_l)) of each query's first pair by one small step on all these pairs at once.

    Per unit of strength; the model keeps its weights.
    """
    weights = _trained(model)
    tree = build_tree(queries).to(weights[0].device)
    first = [tree.pairs[tree.query_of_pair == number][0] for number in range(len(queries))]
    winners, losers = torch.stack(first).unbind(1)
    sums = response_logps(model, tree).sums
    direction = _gradient((sums[winners] - sums[losers]).sum(), weights)
    changes = _changes(model, tree, direction, sums.detach(), strength)
    return list(zip(changes[winners].tolist(), changes[losers].tolist(), strict=True))
