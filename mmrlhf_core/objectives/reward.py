"""Reward-model objectives: per-example tensors in, per-example losses out.

Shape legend: `B` pairs, or critiques. Equations are MM-RLHF's (arXiv 2502.10391, §3); symbols in `symbols.SYMBOLS`.
"""

import torch.nn.functional as F
from torch import Tensor


def bradley_terry(r_w: Tensor, r_l: Tensor) -> Tensor:
    """Eq. 1, and with scores read after ground-truth critiques eq. 3: −log σ(r_w − r_l). [B], [B] → [B]."""
    return -F.logsigmoid(r_w - r_l)


def critique(logp_c: Tensor, length_c: Tensor) -> Tensor:
    """Eq. 2 as a per-sample mean: −log π(c|x,y) / |c|. [B], [B] → [B].

    The paper writes the sum over tokens; the mean keeps a long critique from outweighing a short one.
    """
    return -logp_c / length_c


def tie(r_w: Tensor, r_l: Tensor) -> Tensor:
    """Two responses of equal rank should score the same: (r_w − r_l)². [B], [B] → [B]. The release's tie term."""
    return (r_w - r_l).square()


def centre(r_w: Tensor, r_l: Tensor) -> Tensor:
    """Fixes the offset that eq. 3 leaves free: (r_w + r_l)². [B], [B] → [B]. The release weighs it with 0.01."""
    return (r_w + r_l).square()
