"""Models, queries and training steps that `engine.py` measures.

Every step takes the same weights and the same tokens, leaves its gradients in the model, and returns the loss and
the log-probabilities (or rewards) of all responses, so that a time is only shown beside its parity.
"""

import copy
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import plain_layouts
import torch
import torch.nn.functional as F
import transformers as hf
from PIL import Image

from mmrlhf_core.objectives.preference import dpo, log_ratio_margin
from mmrlhf_core.ranked.attention import prepare
from mmrlhf_core.ranked.batch import RankedQuery, Tree, build_tree
from mmrlhf_core.ranked.logps import hidden_states, response_logps
from mmrlhf_study.miniworld import miniature

BETA = 0.1
# About 12 M parameters of text model, and a tower whose share of a step is that of LLaVA-OneVision's.
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TEXT = {"width": 384, "layers": 6, "heads": 6, "kv_heads": 2, "mlp": 1024, "vision_width": 192, "vision_layers": 4}
TOWER = {"vision_width": 1152, "vision_layers": 26, "vision_heads": 16, "vision_mlp": 4304, "positions": 32768}
HALF_B = {"width": 896, "layers": 24, "heads": 14, "kv_heads": 2, "mlp": 4864, **TOWER}
SEVEN_B = {"width": 3584, "layers": 28, "heads": 28, "kv_heads": 4, "mlp": 18944, "tied": False, **TOWER}


@dataclass(frozen=True)
class Part:
    """One geometry: `queries` queries of P prefix tokens (text and picture) and K responses of R tokens.

    P, R and K are inclusive ranges. `side` is the picture's side in pixels, 0 for text only.
    """

    name: str
    prefix: tuple[int, int]
    response: tuple[int, int]
    responses: tuple[int, int]
    queries: int = 1
    side: int = 0
    sizes: dict = field(default_factory=lambda: TEXT)
    words: int = 3950
    trl_batches: tuple[int, ...] = (1, 6)
    bf16: bool = False
    gpu: bool = False


PARTS = {
    part.name: part
    for part in (
        Part("text P=1000 R=130 K=4", (1000, 1000), (130, 130), (4, 4)),
        Part("llava P=1000 R=130 K=4", (1000, 1000), (130, 130), (4, 4), side=352, bf16=True),
        Part("text P=256 R=50 K=3", (256, 256), (50, 50), (3, 3), trl_batches=(1, 3)),
        Part("llava P=256 R=50 K=3", (256, 256), (50, 50), (3, 3), side=176, trl_batches=(1, 3)),
        Part("llava mini mix", (50, 80), (8, 45), (2, 5), queries=8, side=64, sizes={}, words=400, trl_batches=(8, 16)),
        Part("gpu 0.5B P=1500 K=4", (1500, 1500), (200, 200), (4, 4), side=432, sizes=HALF_B, words=75_000, gpu=True),
        Part("gpu 0.5B P=7000 K=5", (7000, 7000), (200, 200), (5, 5), side=928, sizes=HALF_B, words=75_000, gpu=True),
        Part("gpu 7B P=1500 K=4", (1500, 1500), (200, 200), (4, 4), side=432, sizes=SEVEN_B, words=75_000, gpu=True),
        Part("gpu 7B P=7000 K=5", (7000, 7000), (200, 200), (5, 5), side=928, sizes=SEVEN_B, words=75_000, gpu=True),
    )
}


@dataclass(frozen=True)
class Row:
    """A measured row: `step` returns (loss, values or None) and leaves gradients in `model`; `logps` gives values."""

    step: Callable[[], tuple[float, torch.Tensor | None]]
    model: hf.PreTrainedModel
    logps: Callable[[], torch.Tensor] | None = None


@dataclass
class Case:
    """A part made concrete: policy and reference with the same shapes, queries, and the strings TRL reads."""

    part: Part
    model: hf.PreTrainedModel
    reference: hf.PreTrainedModel
    processor: hf.ProcessorMixin
    queries: list[RankedQuery]
    strings: list[tuple[str, list[str]]]
    pictures: list[Image.Image]
    tree: Tree
    head: torch.nn.Linear

    @property
    def rows(self) -> list[tuple[RankedQuery, int]]:
        """Every response of every query."""
        return [(query, k) for query in self.queries for k in range(len(query.responses))]

    @property
    def pair_rows(self) -> list[tuple[tuple[RankedQuery, int], tuple[RankedQuery, int]]]:
        """Every pair, as (winner row, loser row)."""
        return [((query, w), (query, loser)) for query in self.queries for w, loser in query.pairs]


def _strings(part: Part, words: list[str], draw: random.Random, media_tokens: int) -> tuple[str, list[str]]:
    """A prompt and its responses in words that are one token each."""

    def text(size: int) -> str:
        return "".join(" " + draw.choice(words) for _ in range(size))

    prompt = "<image>" * bool(part.side) + text(draw.randint(*part.prefix) - media_tokens)
    count = draw.randint(*part.responses)
    return prompt, [text(draw.randint(*part.response) - 1) + miniature.END for _ in range(count)]


def _query(processor: hf.ProcessorMixin, prompt: str, responses: list[str], picture: Image.Image | None) -> RankedQuery:
    """Token ids exactly as TRL's collator makes them from the same strings."""
    tokenizer = processor.tokenizer
    ids = [torch.tensor(tokenizer(text, add_special_tokens=False).input_ids) for text in responses]
    media = {} if picture is None else dict(processor(text=[prompt], images=[[picture]], return_tensors="pt"))
    prefix = media.pop("input_ids")[0] if media else torch.tensor(tokenizer(prompt, add_special_tokens=False).input_ids)
    media.pop("attention_mask", None)
    pairs = [(w, loser) for w in range(len(ids)) for loser in range(w + 1, len(ids))]
    media = {key: value.to(DEVICE) for key, value in media.items()}
    return RankedQuery(prefix.to(DEVICE), media, [one.to(DEVICE) for one in ids], pairs)


def _model(part: Part, processor: hf.ProcessorMixin, size: miniature.Size, seed: int) -> hf.PreTrainedModel:
    model = miniature.build_model("llava_onevision", processor, size, seed)
    if not part.side:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = hf.Qwen2ForCausalLM(model.config.text_config)
    if part.gpu:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return prepare(model.to(DEVICE, torch.bfloat16 if part.gpu else torch.float32).train())


def build(part: Part, seed: int = 0) -> Case:
    """Models and queries of a part; the same seed gives the same case."""
    size = miniature.Size(**part.sizes, image=part.side or 64, tiles=1)
    words = [f"w{number}" for number in range(part.words)]
    processor = miniature.build_processor("llava_onevision", words, size)
    draw = random.Random(seed)
    patches = part.side // 16
    strings = [_strings(part, words, draw, 2 * patches**2 + patches) for _ in range(part.queries)]
    pixels = np.random.default_rng(seed)
    shape = (part.side, part.side, 3)
    pictures = [Image.fromarray(pixels.integers(0, 256, shape, dtype=np.uint8)) for _ in strings] if part.side else []
    shown = pictures or [None] * part.queries
    queries = [_query(processor, *text, picture) for text, picture in zip(strings, shown, strict=True)]
    model, reference = (_model(part, processor, size, seed + number) for number in range(2))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = torch.nn.Linear(size.width, 1, bias=False).to(DEVICE, model.dtype)
    on_cpu = [replace(q, prefix=q.prefix.cpu(), responses=[r.cpu() for r in q.responses]) for q in queries]
    tree = build_tree(on_cpu, 128 if part.gpu else 1).to(DEVICE)
    return Case(part, model, reference, processor, queries, strings, pictures, tree, head)


def in_bf16(case: Case) -> Case:
    """The same case with policy weights rounded to bf16."""
    return replace(case, model=copy.deepcopy(case.model).bfloat16())


def exact(case: Case) -> Case:
    """The same case in float64 (fp32 on a GPU, where bf16 is measured and 7B weights in float64 do not fit).

    transformers takes norms and rotary angles in fp32 even then, which leaves an error of about 3e-7 in the gradient.
    """
    dtype = torch.float32 if case.part.gpu else torch.float64
    queries = [replace(q, media={k: v.to(dtype) if v.is_floating_point() else v for k, v in q.media.items()})
               for q in case.queries]  # fmt: skip
    model, reference, head = (copy.deepcopy(module).to(dtype) for module in (case.model, case.reference, case.head))
    return replace(case, model=model, reference=reference, head=head, queries=queries)


def _loss(case: Case, logps: torch.Tensor, ref: torch.Tensor) -> torch.Tensor:
    """DPO, every pair equal. logps and ref [M]."""
    w, loser = case.tree.pairs.T
    return dpo(log_ratio_margin(logps[w], logps[loser], ref[w], ref[loser]), BETA).mean()


def reference_logps(case: Case) -> torch.Tensor:
    """The one-time cost of a cached reference: one forward pass over the tree."""
    with torch.no_grad():
        return response_logps(case.reference, case.tree).sums


def reference_row(case: Case) -> tuple[float, torch.Tensor]:
    """`reference_logps` as a row."""
    return 0.0, reference_logps(case)


def tree_step(case: Case, ref: torch.Tensor) -> tuple[float, torch.Tensor]:
    """One packed sequence, reference from the cache."""
    logps = response_logps(case.model, case.tree).sums
    loss = _loss(case, logps, ref)
    loss.backward()
    return loss.item(), logps.detach()


def autocast_step(case: Case, ref: torch.Tensor) -> tuple[float, torch.Tensor]:
    """`tree_step` with fp32 weights and bf16 products, as `TrainingArguments(bf16=True)` trains."""
    with torch.autocast(DEVICE.type, torch.bfloat16):
        return tree_step(case, ref)


def reference_once(case: Case) -> tuple[float, torch.Tensor]:
    """The same with each response in its own sequence."""
    with torch.no_grad():
        return 0.0, plain_layouts.once_logps(case.reference, case.rows)


def once_step(case: Case, ref: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Each response once with its own prefix, one padded batch, reference from the cache."""
    logps = plain_layouts.once_logps(case.model, case.rows)
    loss = _loss(case, logps, ref)
    loss.backward()
    return loss.item(), logps.detach()


def _numbers(case: Case) -> dict[tuple[int, int], int]:
    return {(id(query), k): number for number, (query, k) in enumerate(case.rows)}


def pairs_step(case: Case) -> tuple[float, torch.Tensor]:
    """Pair by pair, full logits, reference model run beside the policy, gradients accumulated."""
    number, total = _numbers(case), 0.0
    logps = torch.zeros(case.tree.n_responses, device=DEVICE, dtype=torch.float64)
    for pair in case.pair_rows:
        policy = plain_layouts.full_logps(case.model, pair)
        with torch.no_grad():
            beside = plain_layouts.full_logps(case.reference, pair)
        loss = dpo(log_ratio_margin(*policy, *beside), BETA) / len(case.pair_rows)
        loss.backward()
        total += loss.item()
        for (query, k), value in zip(pair, policy.detach(), strict=True):
            logps[number[id(query), k]] = value
    return total, logps


class Trl:
    """TRL's DPOTrainer on the same strings, pictures and weights; `size` pairs per batch.

    Its own best settings: no gradient checkpointing, no dropout, reference log-probabilities computed ahead where it
    allows it (text only; for vision data it refuses).
    """

    def __init__(self, case: Case, size: int) -> None:
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer

        self.case, self.size = case, size
        self.model, beside = copy.deepcopy(case.model), copy.deepcopy(case.reference)
        for model in (self.model, beside):
            model.set_attn_implementation("sdpa")
        examples = []
        for (prompt, texts), query, picture in zip(
            case.strings, case.queries, case.pictures or [None] * len(case.queries), strict=True
        ):
            image = {} if picture is None else {"images": [picture]}
            rows = [{"prompt": prompt, "chosen": texts[w], "rejected": texts[loser]} for w, loser in query.pairs]
            examples += [{**row, **image} for row in rows]
        vision = bool(case.pictures)
        config = DPOConfig(
            output_dir=tempfile.mkdtemp(),
            beta=BETA,
            per_device_train_batch_size=size,
            gradient_checkpointing=False,
            precompute_ref_log_probs=not vision,
            max_length=None,
            bf16=False,
            use_cpu=True,
            report_to="none",
        )
        self.trainer = DPOTrainer(
            self.model,
            beside,
            config,
            train_dataset=Dataset.from_list(examples),
            processing_class=case.processor if vision else case.processor.tokenizer,
        )
        rows = [self.trainer.train_dataset[number] for number in range(len(examples))]
        groups = [rows[start : start + size] for start in range(0, len(rows), size)]
        self.batches = [self.trainer.data_collator(group) for group in groups]
        self.pairs = len(examples)

    def step(self) -> tuple[float, None]:
        """All pairs once, gradients accumulated; the batches were collated before."""
        total = 0.0
        for batch in self.batches:
            share = len(batch["input_ids"]) / 2 / self.pairs
            loss = self.trainer.compute_loss(self.model, batch) * share
            loss.backward()
            total += loss.item()
        return total, None

    def logps(self) -> torch.Tensor:
        """Its log-probability of every response, [M]."""
        number = iter(self.case.pair_rows)
        of = _numbers(self.case)
        out = torch.zeros(self.case.tree.n_responses)
        for batch in self.batches:
            for values in zip(*self.trainer.compute_ref_log_probs(self.model, batch), strict=True):
                for (query, k), value in zip(next(number), values, strict=True):
                    out[of[id(query), k]] = value
        return out


def _reward_loss(case: Case, rewards: torch.Tensor) -> torch.Tensor:
    w, loser = case.tree.pairs.T
    return -F.logsigmoid(rewards[w] - rewards[loser]).mean()


def reward_tree(case: Case, train: bool) -> tuple[float, torch.Tensor]:
    """Rewards of all responses from one tree; with `train`, the Bradley–Terry step too."""
    with torch.set_grad_enabled(train):
        rewards = case.head(hidden_states(case.model, case.tree)[case.tree.ends])[:, 0]
    loss = _reward_loss(case, rewards)
    if train:
        loss.backward()
    return loss.item(), rewards.detach()


def reward_once(case: Case, train: bool) -> tuple[float, torch.Tensor]:
    """The same with each response in its own sequence, one padded batch."""
    with torch.set_grad_enabled(train):
        rewards = case.head(plain_layouts.end_states(case.model, case.rows))[:, 0]
    loss = _reward_loss(case, rewards)
    if train:
        loss.backward()
    return loss.item(), rewards.detach()
