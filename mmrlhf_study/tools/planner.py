"""What a run costs before it starts: tokens, FLOPs, memory and time, for a ranked tree and for per-pair training.

Counts follow from the geometry of the model (built without memory on the `meta` device) and of the query: `P` prompt
tokens with the picture, `K` responses of `R` tokens. The tests compare them with counted FLOPs. Times are computed from
the figures of the machine and an assumed utilisation; they are not measured.
"""

from dataclasses import dataclass

import torch
import transformers as hf
from torch import nn

# for K responses: sequences that carry the prompt (and its picture), and responses behind the prompt in each
SEQUENCES = {
    "per_pair": lambda k: k * (k - 1),
    "prefix_in_pair": lambda k: k * (k - 1) // 2,
    "once": lambda k: k,
    "tree": lambda k: 1,
}
BRANCHES = {"per_pair": lambda k: 1, "prefix_in_pair": lambda k: 2, "once": lambda k: 1, "tree": lambda k: k}
SEQUENCE_LAYOUTS = tuple(SEQUENCES)
FLASH_BACKWARD = 2.5  # attention backward over forward: two products forward; scores again and four gradients back


@dataclass(frozen=True)
class Machine:
    """Per GPU: memory in GiB, its bandwidth in GB/s, peak bf16 TFLOP/s, link to the other GPUs in GB/s."""

    gpus: int
    memory: float
    bandwidth: float
    peak: float
    link: float
    utilisation: float = 0.4

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name} of the machine is {value}. Give a number above 0.")
        if self.utilisation > 1:
            raise ValueError(f"utilisation is {self.utilisation}. Give the share of peak that is reached, at most 1.")


@dataclass(frozen=True)
class QuerySize:
    """Tokens of one ranked query: P prompt tokens, K responses of R tokens, and the picture's crops."""

    P: int
    R: int
    K: int
    crops: int = 1


@dataclass(frozen=True)
class Geometry:
    """Parameters and linear FLOPs of the parts of a vision-language model, and the sizes attention needs."""

    parameters: dict[str, int]
    flops: dict[str, int]  # forward FLOPs of the linear maps for one token of the part (`patch`: the convolution)
    layers: int
    attention_width: int  # heads × head size
    width: int
    mlp: int
    vocabulary: int
    vision_layers: int
    vision_width: int
    patches: int  # of one crop
    crop_tokens: int  # of one crop in the tower: the patches, and a class token where there is one
    projected: int  # tokens of one crop after the projector

    @property
    def total(self) -> int:
        return sum(self.parameters.values())


def _part(name: str) -> str:
    """Which part a module or parameter belongs to, by its place in the transformers model."""
    if "language_model" in name:
        return "text"
    return "projector" if "projector" in name else "head" if name.startswith("lm_head") else "vision"


def geometry(config: hf.PreTrainedConfig) -> Geometry:
    """Parts of the LLaVA-OneVision or InternVL model that `config` describes; no weights are allocated."""
    if config.model_type not in ("llava_onevision", "internvl"):
        raise ValueError(f"The planner counts llava_onevision and internvl models, not {config.model_type!r}.")
    with torch.device("meta"):
        model = hf.AutoModelForImageTextToText.from_config(config)
    parameters = dict.fromkeys(("text", "head", "vision", "projector"), 0)
    flops = {**parameters, "patch": 0}
    for name, parameter in model.named_parameters():
        parameters[_part(name)] += parameter.numel()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            flops["patch" if isinstance(module, nn.Conv2d) else _part(name)] += 2 * module.weight.numel()
    patch = next(m for m in model.modules() if isinstance(m, nn.Conv2d)).kernel_size[0]
    size = config.vision_config.image_size
    patches = ((size[0] if isinstance(size, list | tuple) else size) // patch) ** 2
    queries = next(m for n, m in model.named_modules() if "language_model" in n and n.endswith("q_proj"))
    text, vision = config.text_config, config.vision_config
    internvl = config.model_type == "internvl"
    return Geometry(
        parameters, flops, text.num_hidden_layers, queries.out_features, text.hidden_size, text.intermediate_size,
        text.vocab_size, vision.num_hidden_layers, vision.hidden_size, patches, crop_tokens=patches + internvl,
        projected=config.image_seq_length if internvl else patches,
    )  # fmt: skip


def text_tokens(layout: str, q: QuerySize) -> int:
    """Tokens through the language model for all pairs of one query."""
    return SEQUENCES[layout](q.K) * (q.P + BRANCHES[layout](q.K) * q.R)


def attended(layout: str, q: QuerySize, dense: bool = False) -> int:
    """(query, key) positions each attention layer computes; `dense` counts masked ones, as a T×T mask does."""
    branches = BRANCHES[layout](q.K)
    if dense:
        return SEQUENCES[layout](q.K) * (q.P + branches * q.R) ** 2
    visible = q.P * (q.P + 1) // 2 + branches * (q.R * q.P + q.R * (q.R + 1) // 2)
    return SEQUENCES[layout](q.K) * visible


def head_tokens(layout: str, q: QuerySize) -> int:
    """Positions through the output head: all of them in per-pair training, response tokens elsewhere."""
    if layout == "per_pair":
        return text_tokens(layout, q)
    return SEQUENCES[layout](q.K) * BRANCHES[layout](q.K) * q.R


def forward_flops(g: Geometry, layout: str, q: QuerySize, dense: bool = False) -> dict[str, float]:
    """Forward FLOPs of one query by part."""
    runs = q.crops * SEQUENCES[layout](q.K)
    return {
        "text": g.flops["text"] * text_tokens(layout, q),
        "attention": 4 * g.layers * g.attention_width * attended(layout, q, dense),
        "head": 2 * g.width * g.vocabulary * head_tokens(layout, q),
        "vision": runs * (g.flops["patch"] * g.patches + g.flops["vision"] * g.crop_tokens),
        "vision_attention": runs * 4 * g.vision_layers * g.vision_width * g.crop_tokens**2,
        "projector": runs * g.flops["projector"] * g.projected,
    }


def step_flops(
    g: Geometry, layout: str, q: QuerySize, *, dense: bool = False, checkpointing: bool = True,
    tower_trained: bool = False, reference: bool = False,
) -> float:  # fmt: skip
    """FLOPs of one training step on one query: forward, backward, recomputation, and the online reference if any."""
    forward = forward_flops(g, layout, q, dense)
    total = sum(forward.values()) * (2 if reference else 1)
    for part, flops in forward.items():
        if part.startswith("vision") and not tower_trained:
            continue
        total += flops * (FLASH_BACKWARD if part.endswith("attention") else 2)
        if (checkpointing and part in ("text", "attention")) or (part == "head" and layout != "per_pair"):
            total += flops  # computed again in backward; a head in chunks always is
    return total


def memory(
    g: Geometry, layout: str, q: QuerySize, stage: int, gpus: int, *, queries: int = 1, chunk: int = 1024,
    tower_trained: bool = False,
) -> dict[str, float]:  # fmt: skip
    """GiB per GPU by part, bf16 weights with fp32 Adam states under ZeRO `stage`, checkpointing on.

    Gradients are kept in bf16. Activations: one saved input for each layer, the working set of the one layer being
    recomputed, and the head's chunk of logits (all positions of one pair in per-pair training) in fp32, twice.
    """
    trained = g.total - (0 if tower_trained else g.parameters["vision"])
    together = 2 if layout == "per_pair" else q.K if layout == "once" else 1  # sequences of one micro-batch
    tokens = queries * together * (q.P + BRANCHES[layout](q.K) * q.R)
    logits = tokens if layout == "per_pair" else min(chunk, tokens)
    parts = {
        "weights": 2 * g.total / (gpus if stage >= 3 else 1),
        "gradients": 2 * trained / (gpus if stage >= 2 else 1),
        "optimizer": 12 * trained / (gpus if stage >= 1 else 1),
        "saved_activations": 2 * g.layers * tokens * g.width,
        "working_layer": 2 * tokens * (8 * g.width + 3 * g.mlp),
        "logits": 8 * logits * g.vocabulary,
        "reference": 2 * g.total / (gpus if stage >= 3 else 1) if layout == "per_pair" else 0.0,
    }
    return {name: size / 2**30 for name, size in parts.items()}


def step_seconds(g: Geometry, machine: Machine, flops: float, stage: int, training: bool = True) -> float:
    """Seconds of one micro-batch on each GPU: the slowest of arithmetic, weight traffic and links, overlapped.

    Weights are read once forward, once for recomputation and once backward; between GPUs ZeRO-3 gathers them twice
    and reduces gradients once, the lower stages reduce and gather once each.
    """
    arithmetic = flops / (machine.peak * 1e12 * machine.utilisation)
    traffic = (3 if training else 1) * 2 * g.total / (machine.bandwidth * 1e9)
    moved = (3 if stage >= 3 else 2) * 2 * g.total * (machine.gpus - 1) / machine.gpus if training else 0
    return max(arithmetic, traffic, moved / (machine.link * 1e9))


def decode_seconds(g: Geometry, machine: Machine, tokens: int, batch: int) -> float:
    """Seconds for one GPU to write `tokens` tokens for `batch` sequences at once, bound by reading the weights."""
    arithmetic = 2 * (g.total - g.parameters["vision"]) * batch / (machine.peak * 1e12 * machine.utilisation)
    return tokens * max(2 * g.total / (machine.bandwidth * 1e9), arithmetic)
