"""Every policy answers the same items with the same decoding; answers and settings are written side by side.

Files: `items.parquet`, `answers.parquet` and `settings.json`. The settings hold decoding, seed and, per policy, hashes
of weights and chat template, and the image size. Scores need these settings.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from mmrlhf_core.data import records, storage
from mmrlhf_core.data.records import Record, Response, column
from mmrlhf_core.models import policy, prompts
from mmrlhf_core.models.policy import Policy
from mmrlhf_core.rollout import generate
from mmrlhf_study.miniworld.benches import BenchItem


@dataclass(frozen=True)
class AnswerDecoding:
    """How all policies are sampled; temperature 0 is greedy."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 64
    frames: int = 5  # of a clip
    seed: int = 0


@dataclass(frozen=True, slots=True)
class AskedItem(Record):
    """One item of the evaluation as text."""

    VERSION: ClassVar[int] = 1

    id: str = column("name of the item, used once", filled=True)
    set: str = column("set of items it belongs to", filled=True)
    scene: str = column("hash of the scene; items of one scene are not independent", filled=True)
    prompt: str = column("the question as it was asked", filled=True)
    answer: str = column("the full reference answer")
    key: str = column("the right conclusion; blank for descriptions")
    options: tuple[str, ...] = column("the lettered options")
    decline: bool = column("whether refusing is right")
    label: str = column("target object of an attacked picture; else blank")


@dataclass(frozen=True)
class PolicyAnswers:
    """All policies' answers in item order, with tokens and time."""

    items: tuple[BenchItem, ...]
    texts: Mapping[str, tuple[str, ...]]  # by policy; the first is the base
    tokens: Mapping[str, tuple[int, ...]]  # per answer, with the end token
    seconds: Mapping[str, float]  # wall time of all answers of a policy

    @property
    def reference(self) -> str:
        """The policy that the others are compared with."""
        return next(iter(self.texts))


def policies(folders: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Checkpoints by name, in order, and missing folders.

    A folder is a checkpoint or contains some; a checkpoint's name is its path after `models/`.
    """
    checkpoints, missing = {}, []
    for folder in folders:
        place = storage.path(folder)
        inside = [place] if _is_checkpoint(place) else sorted(filter(_is_checkpoint, place.glob("*")))
        if not inside:
            missing.append(folder)
        for checkpoint in inside:
            name = folder if checkpoint == place else f"{folder}/{checkpoint.name}"
            checkpoints[name.removeprefix("models/")] = name
    if not checkpoints:
        raise ValueError(
            f"No checkpoint in {', '.join(folders) or 'no folder'}. Give folders that contain config.json."
        )
    return checkpoints, missing


def untrained(checkpoints: Mapping[str, str]) -> list[str]:
    """Later policies that only point to the base: not trained, so not compared."""
    first, *others = checkpoints
    return [name for name in others if policy.locate(checkpoints[name]) == policy.locate(checkpoints[first])]


def _is_checkpoint(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.json", policy.REFERENCE))


def _facts(name: str, loaded: Policy) -> dict[str, Any]:
    """Facts that determine a policy's answers, besides decoding."""
    template = loaded.processor.chat_template or loaded.processor.tokenizer.chat_template or ""
    size = loaded.processor.image_processor.size
    return {
        "checkpoint": name,
        "sha256": storage.sha256_tree(policy.locate(name)),
        "template_sha256": storage.sha256_bytes(template.encode()),
        "image_size": {key: value for key, value in dict(size).items() if value is not None},
        "weights": loaded.model.num_parameters(),
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
    }


def answer(
    checkpoints: Mapping[str, str], items: Sequence[BenchItem], how: AnswerDecoding, folder: str, batch: int = 64
) -> PolicyAnswers:
    """Answer all items with every checkpoint and write items, answers and settings."""
    questions, names = [item.prompt(how.frames) for item in items], [item.id for item in items]
    texts, tokens, seconds, facts = {}, {}, {}, {}
    sampled = {key: value for key, value in asdict(how).items() if key != "frames"}
    for name, checkpoint in checkpoints.items():
        loaded = policy.load(checkpoint)
        facts[name], clock = _facts(checkpoint, loaded), time.monotonic()
        answers = generate.sample(loaded, questions, names, 1, batch=batch, desc=name, **sampled)
        seconds[name] = time.monotonic() - clock
        texts[name] = tuple(text for (text,) in answers)
        tokens[name] = tuple(len(prompts.answer_ids(loaded.processor, text)) for text in texts[name])
    given = PolicyAnswers(tuple(items), texts, tokens, seconds)
    records.write(f"{folder}/items.parquet", map(_asked, items), AskedItem)
    records.write(f"{folder}/answers.parquet", _responses(given, sampled), Response)
    storage.write_json(f"{folder}/settings.json", {"decoding": asdict(how), "policies": facts})
    return given


def _asked(item: BenchItem) -> AskedItem:
    q = item.question
    return AskedItem(item.id, item.set, item.scene, q.prompt, q.answer, q.key, q.options, q.decline, item.label)


def _responses(given: PolicyAnswers, sampled: Mapping[str, Any]) -> Iterator[Response]:
    for name, texts in given.texts.items():
        for item, text in zip(given.items, texts, strict=True):
            yield Response(f"{item.id}/{name}", item.id, name, text, **sampled)
