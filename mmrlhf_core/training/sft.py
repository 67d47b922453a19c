"""Supervised fine-tuning with `transformers.Trainer`: cross-entropy on the answer's tokens only.

    L_SFT = -(1/N) sum over the N answer tokens of log pi_theta(y_t | y_<t, x)

Questions about one picture share its tokens: the picture stands once in a row, the questions with their answers
behind it, and each sees the picture and itself. That is exactly the loss of separate rows, at half the tokens.
A run that was killed goes on from its last whole checkpoint with the same batches, and ends with the same weights
to the bit as one that was never interrupted (one process, fixed threads).
Shapes: B pictures of a batch, T tokens of the longest row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from html import escape
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from safetensors.torch import save as to_bytes
from tqdm import tqdm

from mmrlhf_core.data import storage
from mmrlhf_core.models import prompts
from mmrlhf_core.models.policy import Policy, rotary_axes
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.training.optimizer import Mixed

IGNORED = -100  # label of a token without loss
WINDOW = 16  # batches that are sorted by length together
PRECISIONS = ("float32", "bfloat16")
STATE = "trainer_state.json"  # the last file a checkpoint gets


@dataclass(frozen=True)
class Exchange:
    """A prompt and the answer to learn."""

    prompt: Prompt
    answer: str


Lesson = Sequence[Exchange]  # one example, or several about the same pictures


@dataclass(frozen=True)
class SftSettings:
    """One training run; `batch` counts pictures.

    `warmup` is the share of `steps` in which the learning rate rises; after it the rate falls to 0 (`linear`) or
    stays (`constant_with_warmup`), which leaves a model that others can go on from. With `precision` bfloat16 products
    are made in it and weights stay as they are: faster where the processor has units for it.
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
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision!r}; it has to be one of {', '.join(PRECISIONS)}.")


@dataclass(frozen=True)
class PackedRow:
    """One row of a batch before padding; `segment` is 0 for the picture, 1, 2, … for the questions behind it."""

    ids: list[int]
    labels: list[int]
    segment: list[int]
    position: list[int]


def row(processor: hf.ProcessorMixin, encoded: list[int], lesson: Lesson) -> PackedRow:
    """The picture's tokens from `encoded` (the first prompt as `prompts.encode` gives it), then every example."""
    shared = len(encoded) - len(prompts.after_media(processor, lesson[0].prompt))
    built = PackedRow(encoded[:shared], [IGNORED] * shared, [0] * shared, list(range(shared)))
    for number, example in enumerate(lesson, 1):
        asked = prompts.after_media(processor, example.prompt)
        answer = prompts.answer_ids(processor, example.answer)
        built.ids.extend(asked + answer)
        built.labels.extend([IGNORED] * len(asked) + answer)
        built.segment.extend([number] * len(asked + answer))
        built.position.extend(range(shared, shared + len(asked + answer)))
    return built


def collate(processor: hf.ProcessorMixin, lessons: Sequence[Lesson]) -> dict[str, torch.Tensor]:
    """One training batch: `input_ids`, `labels`, `position_ids` [B, T], `attention_mask` [B, 1, T, T], the media.

    A token sees itself and what is before it in its own question or in the picture (mask True).
    """
    batch = prompts.encode(processor, [lesson[0].prompt for lesson in lessons])
    asked = batch.pop("attention_mask").bool()
    rows = [
        row(processor, ids[real].tolist(), lesson)
        for ids, real, lesson in zip(batch.pop("input_ids"), asked, lessons, strict=True)
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


def size(lesson: Lesson) -> int:
    """A rough length that puts like with like: letters of text, and 200 for a picture or a frame."""
    letters = sum(len(example.prompt.text) + len(example.answer) for example in lesson)
    return letters + 200 * (len(lesson[0].prompt.images) + len(lesson[0].prompt.clip))


class Batches(torch.utils.data.Sampler):
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


class Trainer(hf.Trainer):
    """`transformers.Trainer` with the order of `Batches`, Muon, and checkpoints that are really loaded.

    A checkpoint of an image-text model is written with the names of the published ones, not those of the running
    model; transformers 5.23 resumes it without a word and without one weight. `from_pretrained` knows both names.
    """

    def __init__(self, batches: Batches, **arguments) -> None:
        self.batches = batches
        super().__init__(**arguments)

    def _get_train_sampler(self, train_dataset: object = None) -> Batches:
        return self.batches

    def create_optimizer(self, model: object = None) -> Mixed:
        precision = torch.bfloat16 if self.args.bf16 else torch.float32
        self.optimizer = Mixed(
            self.model.named_parameters(), self.args.learning_rate, self.args.weight_decay, precision
        )
        return self.optimizer

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: object = None) -> None:
        saved = type(self.model).from_pretrained(resume_from_checkpoint, dtype=self.model.dtype)
        self.model.load_state_dict(saved.state_dict())


class Bar(hf.TrainerCallback):
    """One progress bar with the remaining time and the loss."""

    def __init__(self, desc: str) -> None:
        self.desc = desc

    def on_train_begin(self, args, state, control, **rest) -> None:
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.desc, unit="step")

    def on_step_end(self, args, state, control, **rest) -> None:
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs, **rest) -> None:
        if "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.3f}")

    def on_train_end(self, args, state, control, **rest) -> None:
        self.bar.close()


def fingerprint(policy: Policy, lessons: Sequence[Lesson], settings: SftSettings) -> str:
    """Hash of all that decides the outcome: weights, examples (text and pixels), settings."""
    weights = {name: tensor.contiguous() for name, tensor in policy.model.state_dict().items()}
    parts = [storage.sha256_bytes(to_bytes({n: t.cpu().clone() for n, t in weights.items()})), repr(asdict(settings))]
    seen: dict[int, str] = {}
    for example in (example for lesson in lessons for example in lesson):
        for image in (*example.prompt.images, *example.prompt.clip):
            if id(image) not in seen:
                seen[id(image)] = storage.sha256_bytes(image.tobytes())
            parts.append(seen[id(image)])
        parts += [example.prompt.text, example.answer]
    return storage.sha256_bytes("\0".join(parts).encode())


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; one that was being written when the run was killed is removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for path in reversed(found):
        if (path / STATE).is_file() and (path / STATE).read_text().rstrip().endswith("}"):
            return path
        storage.remove(path)
    return None


def train(
    policy: Policy,
    lessons: Sequence[Lesson],
    settings: SftSettings,
    folder: str | Path,
    callbacks: Sequence[hf.TrainerCallback] = (),
    desc: str = "steps",
) -> list[dict[str, float]]:
    """Train `policy` in place; returns its loss curve as rows of step, loss and learning rate.

    Checkpoints lie below `folder`, named after all that decides the outcome, so that a changed run never goes on
    from another one's; they are removed at the end.
    """
    if rotary_axes(policy.model) > 1:
        raise ValueError(
            f"{type(policy.model).__name__} has multimodal rotary positions, for which lessons cannot share a picture "
            "yet. Train a LLaVA-OneVision or InternVL model."
        )
    home = storage.path(folder) / fingerprint(policy, lessons, settings)[:16]
    batches = Batches([size(lesson) for lesson in lessons], settings.batch, settings.steps, settings.seed)
    trainer = Trainer(
        batches,
        model=policy.model,
        args=_arguments(settings, home),
        train_dataset=list(lessons),
        data_collator=lambda taken: collate(policy.processor, taken),
        callbacks=[Bar(desc), *callbacks],
    )
    trainer.remove_callback(hf.PrinterCallback)
    trainer.train(resume_from_checkpoint=last_checkpoint(home))
    policy.model.eval()
    storage.remove(home)
    rows = [row for row in trainer.state.log_history if "loss" in row]
    return [{"step": row["step"], "loss": row["loss"], "lr": row["learning_rate"]} for row in rows]


def _arguments(settings: SftSettings, home: Path) -> hf.TrainingArguments:
    """The settings in the words of transformers."""
    return hf.TrainingArguments(
        output_dir=str(home),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch,
        learning_rate=settings.lr,
        lr_scheduler_type=settings.schedule,
        warmup_steps=round(settings.warmup * settings.steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=1.0,
        bf16=settings.precision == "bfloat16",
        seed=settings.seed,
        full_determinism=False,
        logging_steps=settings.logging_steps,
        logging_nan_inf_filter=False,
        save_steps=settings.save_steps,
        save_total_limit=2,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,
    )


def pieces(processor: hf.ProcessorMixin, batch: dict[str, torch.Tensor], row: int) -> list[tuple[str, bool]]:
    """One row of a batch decoded back to text: each piece, and whether the loss sees it; equal neighbours once."""
    real = batch["attention_mask"][row, 0].diagonal() & (batch["input_ids"][row] != processor.tokenizer.pad_token_id)
    ids, labels = batch["input_ids"][row][real].tolist(), batch["labels"][row][real].tolist()
    found = []
    for (token, label), group in groupby(zip(ids, labels, strict=True)):
        text, count = processor.tokenizer.decode([token]), len(list(group))
        found.append((f"{text}×{count} " if count > 1 else text, label != IGNORED))
    return found


def marked(processor: hf.ProcessorMixin, batch: dict[str, torch.Tensor], row: int) -> str:
    """`pieces` as one paragraph of HTML, tokens with loss on a coloured ground."""
    parts = [f"<mark>{escape(text)}</mark>" if seen else escape(text) for text, seen in pieces(processor, batch, row)]
    return f"<p style='font-family: monospace'>{''.join(parts)}</p>"
