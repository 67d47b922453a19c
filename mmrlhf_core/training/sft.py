"""Supervised fine-tuning with `transformers.Trainer`: cross-entropy on the answer's tokens only.

    L_SFT = -(1/N) sum over the N answer tokens of log pi_theta(y_t | y_<t, x)

An example is a sequence of exchanges about the same pictures. Its row holds the pictures once, then every question
with its answer; each exchange attends to the pictures and to itself, so the loss is that of separate rows.
An interrupted run resumes and ends with bitwise the same weights (one process, fixed threads).
Shapes: `B` examples of a batch, `T` tokens of the longest row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from safetensors.torch import save as to_bytes

from mmrlhf_core.data import storage
from mmrlhf_core.models import prompts
from mmrlhf_core.models.policy import Policy, rotary_axes
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.training import checkpoints
from mmrlhf_core.training.base import DTYPES, ProgressBar, ResumingTrainer, arguments, check_choice
from mmrlhf_core.training.optimizer import Mixed

IGNORED = -100  # label of a token without loss
WINDOW = 16  # batches that are sorted by length together


@dataclass(frozen=True)
class Exchange:
    """A prompt and the answer to learn."""

    prompt: Prompt
    answer: str


@dataclass(frozen=True)
class SftSettings:
    """One training run; `batch` counts examples.

    `warmup` is the share of `steps` in which the learning rate rises; after it the rate falls to 0 (`linear`) or
    stays constant (`constant_with_warmup`). With `precision` bfloat16 only matrix products are in bfloat16.
    """

    steps: int
    batch: int
    lr: float
    schedule: str = "linear"
    warmup: float = 0.05
    weight_decay: float = 0.01
    seed: int = 0
    save_steps: int = 200
    logging_steps: int = 10
    precision: str = "float32"

    def __post_init__(self) -> None:
        check_choice("precision", self.precision, DTYPES)


@dataclass(frozen=True)
class PackedRow:
    """One row of a batch before padding; `segment` is 0 for the pictures and 1, 2, … for the exchanges."""

    ids: list[int]
    labels: list[int]
    segment: list[int]
    position: list[int]


def row(processor: hf.ProcessorMixin, encoded: list[int], example: Sequence[Exchange]) -> PackedRow:
    """The pictures' tokens from `encoded` (the first prompt from `prompts.encode`), then every exchange."""
    shared = len(encoded) - len(prompts.after_media(processor, example[0].prompt))
    built = PackedRow(encoded[:shared], [IGNORED] * shared, [0] * shared, list(range(shared)))
    for number, exchange in enumerate(example, 1):
        question = prompts.after_media(processor, exchange.prompt)
        answer = prompts.answer_ids(processor, exchange.answer)
        built.ids.extend(question + answer)
        built.labels.extend([IGNORED] * len(question) + answer)
        built.segment.extend([number] * len(question + answer))
        built.position.extend(range(shared, shared + len(question + answer)))
    return built


def collate(processor: hf.ProcessorMixin, examples: Sequence[Sequence[Exchange]]) -> dict[str, torch.Tensor]:
    """One training batch: `input_ids`, `labels`, `position_ids` [B, T], `attention_mask` [B, 1, T, T], the media.

    A token attends to itself and to the tokens before it in its own exchange or in the pictures (mask True).
    """
    batch = prompts.encode(processor, [example[0].prompt for example in examples])
    asked = batch.pop("attention_mask").bool()
    rows = [
        row(processor, ids[real].tolist(), example)
        for ids, real, example in zip(batch.pop("input_ids"), asked, examples, strict=True)
    ]
    ids = _padded([r.ids for r in rows], processor.tokenizer.pad_token_id)
    segment = _padded([r.segment for r in rows], -1)
    same = segment[:, :, None] == segment[:, None, :]
    picture = (segment == 0)[:, None, :] & (segment >= 0)[:, :, None]
    return {
        **batch,
        "input_ids": ids,
        "labels": _padded([r.labels for r in rows], IGNORED),
        "position_ids": _padded([r.position for r in rows], 0),
        "attention_mask": ((same | picture) & torch.ones_like(same).tril())[:, None],
    }


def _padded(rows: Sequence[list[int]], fill: int) -> torch.Tensor:
    """Rows of unequal length as one tensor, filled up on the right."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(r) for r in rows], batch_first=True, padding_value=fill)


def size(example: Sequence[Exchange]) -> int:
    """A rough length to sort examples by: characters of text, and 200 for a picture or a frame."""
    letters = sum(len(exchange.prompt.text) + len(exchange.answer) for exchange in example)
    return letters + 200 * (len(example[0].prompt.images) + len(example[0].prompt.clip))


class Batches(torch.utils.data.Sampler[int]):
    """Example numbers in training order: every epoch shuffled, neighbours within a window sorted by length."""

    def __init__(self, sizes: Sequence[int], batch: int, steps: int, seed: int) -> None:
        self.sizes, self.batch, self.steps, self.seed = np.asarray(sizes), batch, steps, seed

    def __len__(self) -> int:
        return self.batch * self.steps

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng(self.seed)
        epochs = -(-len(self) // len(self.sizes))
        order = np.concatenate([rng.permutation(len(self.sizes)) for _ in range(epochs)])[: len(self)]
        for start in range(0, len(order), self.batch * WINDOW):
            window = order[start : start + self.batch * WINDOW]
            window = window[np.argsort(self.sizes[window], kind="stable")]
            for group in rng.permutation(len(window) // self.batch):
                yield from window[group * self.batch : (group + 1) * self.batch].tolist()


class SftTrainer(ResumingTrainer):
    """`transformers.Trainer` that takes its examples in the order of `Batches`."""

    def __init__(self, batches: Batches, **given: Any) -> None:
        self.batches = batches
        super().__init__(**given)

    def _get_train_sampler(self, train_dataset: object = None) -> Batches:
        return self.batches

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: object = None) -> None:
        checkpoints.load_weights(self.model, resume_from_checkpoint)


def fingerprint(policy: Policy, examples: Sequence[Sequence[Exchange]], settings: SftSettings) -> str:
    """Hash of everything that decides the outcome: weights, examples (text and pixels), settings."""
    weights = {name: tensor.contiguous() for name, tensor in policy.model.state_dict().items()}
    parts = [storage.sha256_bytes(to_bytes({n: t.cpu().clone() for n, t in weights.items()})), repr(asdict(settings))]
    hashes: dict[int, str] = {}  # by identity, because exchanges share their pictures
    for exchange in chain.from_iterable(examples):
        for image in (*exchange.prompt.images, *exchange.prompt.clip):
            if id(image) not in hashes:
                hashes[id(image)] = storage.sha256_bytes(image.tobytes())
            parts.append(hashes[id(image)])
        parts += [exchange.prompt.text, exchange.answer]
    return storage.sha256_bytes("\0".join(parts).encode())


def train(
    policy: Policy, examples: Sequence[Sequence[Exchange]], settings: SftSettings, folder: str | Path,
    callbacks: Sequence[hf.TrainerCallback] = (), desc: str = "steps",
) -> list[dict[str, float]]:  # fmt: skip
    """Train `policy` in place; returns its loss curve as rows of step, loss and learning rate.

    Checkpoints are written below `folder` under a hash of everything that decides the outcome, and removed at the end.
    """
    if rotary_axes(policy.model) > 1:
        raise ValueError(
            f"{type(policy.model).__name__} has multimodal rotary positions, for which several examples cannot share "
            "a picture yet. Train a LLaVA-OneVision or InternVL model."
        )
    home = storage.path(folder) / fingerprint(policy, examples, settings)[:16]
    muon = Mixed(policy.model.named_parameters(), settings.lr, settings.weight_decay, DTYPES[settings.precision])
    trainer = SftTrainer(
        Batches([size(example) for example in examples], settings.batch, settings.steps, settings.seed),
        model=policy.model, args=_arguments(settings, home), train_dataset=list(examples), optimizers=(muon, None),
        data_collator=lambda batch: collate(policy.processor, batch), callbacks=[ProgressBar(desc), *callbacks],
    )  # fmt: skip
    trainer.remove_callback(hf.PrinterCallback)
    trainer.resume()
    policy.model.eval()
    storage.remove(home)
    rows = [row for row in trainer.state.log_history if "loss" in row]
    return [{"step": row["step"], "loss": row["loss"], "lr": row["learning_rate"]} for row in rows]


def _arguments(settings: SftSettings, home: Path) -> hf.TrainingArguments:
    """The settings as `transformers` names them."""
    return arguments(
        home, max_steps=settings.steps, per_device_train_batch_size=settings.batch, learning_rate=settings.lr,
        lr_scheduler_type=settings.schedule, warmup_steps=round(settings.warmup * settings.steps),
        weight_decay=settings.weight_decay, bf16=settings.precision == "bfloat16", seed=settings.seed,
        logging_steps=settings.logging_steps, save_strategy="steps", save_steps=settings.save_steps,
        save_total_limit=2, use_cpu=not torch.cuda.is_available(), disable_tqdm=True,
    )  # fmt: skip
