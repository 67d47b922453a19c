"""How the base policy and the responders are made: each has a starting point and is trained for some steps.

A start is `scratch` (random weights), the name of a model made before, or a checkpoint (a folder or a hub id). With 0
steps a checkpoint is used unchanged: its folder holds a reference to it, never a copy of the weights.
"""

import gc
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields
from typing import NamedTuple

from mmrlhf_core.data import storage
from mmrlhf_core.models import policy
from mmrlhf_core.models.policy import Policy
from mmrlhf_core.ranked.vision import frozen
from mmrlhf_core.training import sft
from mmrlhf_core.training.sft import SftSettings
from mmrlhf_study.miniworld import curriculum, miniature, tower
from mmrlhf_study.miniworld.curriculum import Mix
from mmrlhf_study.miniworld.scenes import FAMILIES, Scene

SCRATCH, ALL_FAMILIES = "scratch", "all"
TOWER_BATCH, TOWER_LR = 64, 2e-3  # pictures per step and learning rate of a tower


@dataclass(frozen=True)
class Recipe:
    """How one model is made: `tower_steps` for its vision tower, then `steps` of supervised fine-tuning.

    `width`, `layers` and `tower_steps` are for a start from scratch. `scenes` names the families of scenes in the
    training data (`all`, or some names), `batch` is the number of scenes per step.
    """

    name: str
    start: str
    steps: int
    lr: float
    mix: Mix = field(default_factory=Mix)
    width: int = 192
    layers: int = 4
    schedule: str = "linear"
    tower_steps: int = 0
    scenes: str = ALL_FAMILIES
    batch: int = 8


class Made(NamedTuple):
    """A finished model: policy, the checkpoint that it refers to (blank once trained), and its training curves."""

    policy: Policy
    checkpoint: str
    curve: list[dict[str, float]]
    tower_curve: list[dict[str, float]]


def size(width: int, layers: int) -> miniature.Size:
    """The sizes of a miniature: heads of 32, a third as many key-value heads, a vision tower of two layers."""
    heads = width // 32
    if width % 96:
        raise ValueError(f"width {width} is no multiple of 96; heads have 32 channels and form groups of three.")
    return miniature.Size(width=width, layers=layers, heads=heads, kv_heads=heads // 3, mlp=width * 8 // 3)


def _start(recipe: Recipe, made: Mapping[str, Made], seed: int) -> tuple[Policy, str]:
    """The policy that a recipe starts from, and its checkpoint where it is an unchanged one."""
    if recipe.start == SCRATCH:
        return miniature.create("llava_onevision", curriculum.words(), size(recipe.width, recipe.layers), seed), ""
    if recipe.start in made:
        parent = made[recipe.start]
        return (deepcopy(parent.policy) if recipe.steps else parent.policy), parent.checkpoint
    return policy.load(recipe.start), recipe.start


def make(
    recipe: Recipe,
    made: Mapping[str, Made],
    scenes: Sequence[Scene],
    each: int,
    frames: int,
    seed: int,
    precision: str = "float32",
) -> Made:
    """Make one model from `each` examples about every scene.

    The vision tower is trained first, on all families and in float32; it is frozen during the fine-tuning.
    """
    gc.collect()  # the last model's optimizer and examples are in a reference cycle with its trainer
    own = (seed + int(storage.sha256_bytes(recipe.name.encode())[:6], 16)) % 2**31  # every model has its own order
    learner, checkpoint = _start(recipe, made, own)
    tower_curve = tower.pretrain(learner, scenes, curriculum.words(), recipe.tower_steps, TOWER_BATCH, TOWER_LR, own)
    if recipe.steps == 0:
        return Made(learner, checkpoint, [], [])
    wanted = FAMILIES if recipe.scenes == ALL_FAMILIES else recipe.scenes.split()
    about = [scene for scene in scenes if scene.family in wanted]
    taught = [curriculum.lesson(scene, recipe.mix, each, frames, own) for scene in about]
    rhythm = max(1, min(10, recipe.steps // 4))
    settings = SftSettings(
        recipe.steps, recipe.batch, recipe.lr, recipe.schedule, seed=own, logging_steps=rhythm, precision=precision
    )
    folder = f"scratch/checkpoints/{recipe.name}"
    with frozen(learner.model):
        curve = sft.train(learner, taught, settings, folder, desc=recipe.name)
    return Made(learner, "", *([{"model": recipe.name, **row} for row in rows] for rows in (curve, tower_curve)))


def keep(folder: str, made: Made) -> None:
    """Write a model to the folder from which later chapters load it."""
    if made.checkpoint:
        policy.refer(folder, made.checkpoint)
    else:
        policy.save(folder, made.policy)


def describe(recipe: Recipe) -> dict[str, str | int | float]:
    """A recipe as one flat row."""
    row = asdict(recipe)
    return {**{key: value for key, value in row.items() if key != "mix"}, **row["mix"]}


def recipes(names: Sequence[str], **columns: Sequence) -> list[Recipe]:
    """The recipes of some models; every column (a field of `Recipe` or `Mix`) has one value for each name."""
    for key, values in columns.items():
        if len(values) != len(names):
            raise ValueError(
                f"{key} has {len(values)} values for {len(names)} names. Give one for each of {list(names)}."
            )
    chosen = []
    for number, name in enumerate(names):
        row = {key: values[number] for key, values in columns.items()}
        if row["start"] == name or row["start"] in names[number + 1 :]:
            raise ValueError(f"{name} starts from {row['start']!r}, which is made later. List {name} after it.")
        unknown = (
            []
            if row.get("scenes", ALL_FAMILIES) == ALL_FAMILIES
            else sorted(set(row["scenes"].split()) - set(FAMILIES))
        )
        if unknown:
            raise ValueError(f"{name} has unknown families {unknown}. Give 'all' or some of {' '.join(FAMILIES)}.")
        mix = Mix(**{part.name: row.pop(part.name) for part in fields(Mix)})
        chosen.append(Recipe(name=name, mix=mix, **row))
    return chosen
