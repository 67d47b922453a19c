"""Muon for the matrices, AdamW for the rest, as one optimizer that schedulers and checkpoints can handle.

Muon steps along the momentum of a matrix with all singular values set to about 1. `torch.optim.Muon` always computes
in bfloat16, which is slow on CPUs without it; this one computes in the precision it is given.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor

MUON = 10.0  # Muon's learning rate is this many times AdamW's: its steps have unit scale
APART = ("embed", "lm_head", "position")  # matrices that are tables of vectors
MOMENTUM = 0.95
BETAS, EPS = (0.9, 0.98), 1e-8
QUINTIC = (3.4445, -4.7750, 2.0315)  # coefficients of the Newton-Schulz iteration of Muon


def orthogonal(matrices: Tensor) -> Tensor:
    """[n, r, c] to [n, r, c] with the same singular vectors and all singular values near 1 (0.7 to 1.2)."""
    tall = matrices.shape[1] > matrices.shape[2]
    x: Tensor = matrices.mT if tall else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(5):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


class Mixed(torch.optim.Optimizer):
    """Muon and AdamW stepping together."""

    def __init__(
        self, named: Iterable[tuple[str, torch.nn.Parameter]], lr: float, weight_decay: float = 0.01,
        precision: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        """Parameters by name; `precision` is that of Muon's products, weights and momentum keep their own."""
        self.precision = precision
        matrices: list[Tensor] = []
        others: list[Tensor] = []
        for name, weight in named:
            table = weight.dim() != 2 or any(part in name for part in APART)
            (others if table else matrices).append(weight)
        groups = [{"params": matrices, "lr": MUON * lr, "muon": True}, {"params": others, "lr": lr, "muon": False}]
        super().__init__(groups, {"weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # a closure is not supported
        for group in self.param_groups:
            moved = [weight for weight in group["params"] if weight.grad is not None]
            for weight in moved:
                weight.mul_(1 - group["lr"] * group["weight_decay"])
            (self._muon if group["muon"] else self._adamw)(moved, group["lr"])

    def _muon(self, weights: list[Tensor], lr: float) -> None:
        """Nesterov momentum, made orthogonal; a tall matrix moves further by the root of its ratio of sides."""
        shapes: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for weight in weights:
            gradient, state = cast(Tensor, weight.grad), self.state[weight]
            momentum: Tensor = state.setdefault("momentum", torch.zeros_like(weight))
            momentum.lerp_(gradient, 1 - MOMENTUM)
            shapes[weight.shape].append((weight, gradient.lerp(momentum, MOMENTUM)))
        for (rows, columns), pairs in shapes.items():
            steps = orthogonal(torch.stack([step for _, step in pairs]).to(self.precision))
            for (weight, _), step in zip(pairs, steps, strict=True):
                weight.add_(step.to(weight.dtype), alpha=-lr * max(1, rows / columns) ** 0.5)

    def _adamw(self, weights: list[Tensor], lr: float) -> None:
        for weight in weights:
            gradient, state = cast(Tensor, weight.grad), self.state[weight]
            if not state:
                state["step"] = torch.tensor(0.0)
                state["mean"], state["square"] = torch.zeros_like(weight), torch.zeros_like(weight)
            state["step"] += 1
            state["mean"].lerp_(gradient, 1 - BETAS[0])
            state["square"].lerp_(gradient**2, 1 - BETAS[1])
            first, second = (1 - beta ** state["step"].item() for beta in BETAS)
            weight.addcdiv_(state["mean"], (state["square"] / second).sqrt_().add_(EPS), value=-lr / first)
