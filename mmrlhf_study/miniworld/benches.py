"""Nine of the paper's ten dimensions in MiniWorld: items drawn by seed and scored by a program against the truth.

The items of a set share family, tasks and form. A bench scores the answers to one set or more with the metric of the
benchmark it stands for. The tenth dimension is in `safety`. Scenes come from their own range of seeds, and none has the
hash of a scene that was given as seen.

Limits of MiniWorld: bars are 1 to 8 high, so a tolerance of 5 % allows nothing. All objects are about equally frequent,
so POPE's popular objects are hardly more tempting than random ones. POPE's adversarial objects are those that often
occur together; here they are near misses with one attribute changed.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import yaml
from PIL import Image

from mmrlhf_core.models.prompts import Prompt
from mmrlhf_study.evaluation import metrics
from mmrlhf_study.miniworld import claims, curriculum, questions, scenes, truth
from mmrlhf_study.miniworld.questions import Question
from mmrlhf_study.miniworld.scenes import CELLS, OBJECT_COLOURS, OBJECT_KINDS, Fact, Scene

FIRST_SEED = 5 * 10**7  # of the evaluation range; the examination of chapter 00 begins at 0
SEEDS = 10**5  # looked through for one set at most
SETTINGS = ("random", "popular", "adversarial")
OBJECTS = frozenset(OBJECT_KINDS) | {f"{colour} {kind}" for colour in OBJECT_COLOURS for kind in OBJECT_KINDS}
_TABLES = yaml.safe_load(Path(__file__).with_name("benches.yaml").read_text(encoding="utf-8"))
SETS = {name: (one["family"], tuple(one["tasks"]), one["form"]) for name, one in _TABLES["sets"].items()}


@dataclass(frozen=True)
class BenchItem:
    """One thing that every policy is asked; items of one scene are not independent."""

    set: str
    question: Question
    pictures: tuple[Image.Image, ...] = ()  # shown instead of the scene's own
    label: str = ""  # the object that an attack is about

    @property
    def id(self) -> str:
        return self.question.id

    @property
    def scene(self) -> str:
        return self.question.scene.hash

    def prompt(self, frames: int) -> Prompt:
        """What is asked, as in training; a clip is cut to `frames` frames."""
        if self.pictures:
            return Prompt(self.question.prompt, self.pictures)
        return curriculum.prompt(self.question, frames)


# ---------------------------------------------------------------- drawing


def fresh_scenes(
    name: str, family: str, fits: Callable[[Scene], object], n: int, taken: set[str], seed: int
) -> list[Scene]:
    """`n` scenes of a set that fit it, none with a hash in `taken`; their hashes are added to it."""
    start = FIRST_SEED + seed % 1000 * 10**4 + Random(f"evaluate {name}").randrange(10**6) * 10
    numbers = scenes.EVALUATION[start : start + SEEDS]
    fresh = list(islice(scenes.unseen(family, numbers, taken, fits), n))
    if len(fresh) == n:
        return fresh
    raise ValueError(f"Only {len(fresh)} of {n} new scenes for {name!r} in {SEEDS:,} seeds. Ask for fewer items.")


def _allowed(scene: Scene, names: Sequence[str], form: str) -> list[str]:
    """Those of the tasks that make sense for a scene."""
    return [task for task in names if task in questions.tasks(scene, form)]


def draw(n: int, taken: set[str], seed: int) -> list[BenchItem]:
    """`n` items of every set (four for POPE), about scenes with no hash in `taken`; their hashes are added to it."""
    items = []
    for name, (family, names, form) in SETS.items():
        fits = partial(_allowed, names=names, form=form)
        for scene in fresh_scenes(name, family, fits, n, taken, seed):
            task = Random(f"evaluate {seed} {name} {scene.seed}").choice(fits(scene))
            items.append(BenchItem(name, questions.ask(scene, task, form)))
    return items + _pope_items(fresh_scenes("objects", "shapes", bool, n, taken, seed), seed)


def _pope_items(fresh: Sequence[Scene], seed: int) -> list[BenchItem]:
    """A question to answer with yes, and three with no, about each scene: `is there a red circle at b3 ?`."""
    popular = [thing for thing, _ in Counter(fact.thing for scene in fresh for fact in scene.facts).most_common()]
    items = []
    for scene in fresh:
        rng = Random(f"evaluate {seed} pope {scene.seed}")
        claimed = {"yes": rng.choice(scene.facts)}
        claimed |= {setting: _absent(rng, scene, setting, popular) for setting in SETTINGS}
        items += [_object_item(scene, claim, setting) for setting, claim in claimed.items()]
    return items


def _absent(rng: Random, scene: Scene, setting: str, popular: Sequence[str]) -> Fact:
    """A claim that does not hold, by POPE's setting."""
    there = rng.choice(scene.facts)
    if setting == "adversarial":
        near = Fact(there.place, scenes.vary(rng, there.thing))
        moved = Fact(rng.choice([cell for cell in CELLS if scene.at(cell) == scenes.NOTHING]), there.thing)
        return rng.choice((near, moved))
    if setting == "popular":
        here = {fact.thing for fact in scene.facts}
        return Fact(there.place, next((thing for thing in popular if thing not in here), scenes.vary(rng, there.thing)))
    claim = there
    while claims.holds(claim, scene):
        place = rng.choice(CELLS)
        claim = Fact(place, scenes.thing(rng, scene.family, place))
    return claim


def _object_item(scene: Scene, claim: Fact, setting: str) -> BenchItem:
    """The question whether a claim holds, in the words of the task `exists_at`."""
    key = "yes" if claims.holds(claim, scene) else "no"
    answer = questions.compose(scene.family, [Fact(claim.place, scene.at(claim.place))], key)
    prompt = f"is there {claim.thing} at {claim.place} ?"
    exists = questions.ask(scene, "exists_at")
    question = replace(
        exists, id=f"{exists.id}~{setting}", prompt=prompt, key=key, evidence=(claim.place,), answer=answer
    )
    return BenchItem(f"objects {setting}", question)


# ---------------------------------------------------------------- measures

Columns = Callable[[str, BenchItem, str], tuple[float, ...]]  # answer, item, the reference policy's answer
Statistic = Callable[[np.ndarray], np.ndarray]  # sums [..., columns + 1], the number of answers last, to [...]


@dataclass(frozen=True)
class Measure:
    """How answers become a number; the first column is how good an answer is, 0 to 1, also where less is better."""

    name: str
    unit: str
    higher: bool  # whether more is better
    columns: Columns
    statistic: Statistic
    share: int | None = None  # the column of 0 and 1 whose mean in percent the number is, where it is one


def percent(sums: np.ndarray) -> np.ndarray:
    """The mean of the first column in percent."""
    return 100 * sums[..., 0] / sums[..., -1]


def _option(text: str, item: BenchItem, _: str) -> tuple[float, ...]:
    options = item.question.options
    return (float(metrics.option_letter(text, options) == "abcd"[options.index(item.question.key)]),)


def _pope(text: str, item: BenchItem, _: str) -> tuple[float, ...]:
    answer, key = metrics.yes_no(text), item.question.key
    return float(answer == key), *metrics.pope_columns(answer, key), float(key == "yes")


def _chair(text: str, item: BenchItem, good: Callable[[float, float, float], float]) -> tuple[float, ...]:
    """How good a description is, and its `metrics.chair_columns`; objects count with their colour and without."""
    words = [fact.thing.split() for fact in item.question.scene.facts]
    there = {phrase for _, *rest in words for phrase in (rest[-1], " ".join(rest[-2:]))}
    columns = metrics.chair_columns(metrics.objects(text, OBJECTS), there)
    return good(*columns), *columns


def _chair_i(text: str, item: BenchItem, _: str) -> tuple[float, ...]:
    return _chair(text, item, lambda wrong, mentions, any_wrong: 1 - wrong / max(mentions, 1))


def _chair_s(text: str, item: BenchItem, _: str) -> tuple[float, ...]:
    return _chair(text, item, lambda wrong, mentions, any_wrong: 1 - any_wrong)


def _judged(text: str, item: BenchItem, _: str) -> tuple[float, ...]:
    """The truth checker as judge: helpfulness and faithfulness, 1 to 5 each, put on 0 to 1."""
    seen = truth.check(text, item.question)
    return ((seen.helpfulness + seen.faithfulness - 2) / 8,)


def _won(text: str, item: BenchItem, other: str) -> tuple[float, ...]:
    """The truth checker as a judge of two answers, by score and then by faults: 1 for a win, ½ for a tie."""

    def worth(answer: str) -> tuple[int, int]:
        seen = truth.check(answer, item.question)
        return seen.score, -seen.wrong - len(seen.missing)

    ours, theirs = worth(text), worth(other)
    return (0.5 + 0.5 * ((ours > theirs) - (ours < theirs)),)


def _matching(match: Callable[[str, Sequence[str]], float]) -> Columns:
    return lambda text, item, _: (match(text, [item.question.key]),)


EXACT_MATCH = Measure("exact match", "%", True, _matching(metrics.exact_match), percent, 0)
RELAXED = Measure("relaxed accuracy", "%", True, _matching(metrics.relaxed_match), percent, 0)
ANLS = Measure("ANLS", "%", True, _matching(metrics.anls), percent)
OPTION = Measure("option letter", "%", True, _option, percent, 0)
POPE = Measure("accuracy", "%", True, _pope, percent, 0)
CHAIR_I = Measure("CHAIR-i", "%", False, _chair_i, lambda s: 100 * metrics.chair(s[..., 1:4], s[..., -1])[0])
CHAIR_S = Measure("CHAIR-s", "%", False, _chair_s, lambda s: 100 * metrics.chair(s[..., 1:4], s[..., -1])[1], 3)
JUDGE = Measure("judge, relative", "% of the reference", True, _judged, lambda s: 20 + 0.8 * percent(s))
MEAN_POINTS = Measure("judge, points", "1 to 5", True, _judged, lambda s: 1 + percent(s) / 25)
WON = Measure("win rate, a tie is half", "%", True, _won, percent)  # against itself 50


@dataclass(frozen=True)
class Bench:
    """A measure of the answers to some sets, and the row of the paper's tables it stands for."""

    name: str
    dimension: str
    counterpart: str  # row of `paper.PAPER_ROWS`; blank for a control
    sets: tuple[str, ...]
    measure: Measure


def read(part: str, measures: Iterable[Measure]) -> tuple[Bench, ...]:
    """The benches in one part of `benches.yaml`, which names one of the measures for each."""
    named = {measure.name: measure for measure in measures}
    rows = ({**row, "sets": tuple(row["sets"]), "measure": named[row["measure"]]} for row in _TABLES[part])
    return tuple(Bench(**row) for row in rows)


BENCHES = read("benches", (EXACT_MATCH, RELAXED, ANLS, OPTION, POPE, CHAIR_I, CHAIR_S, JUDGE, MEAN_POINTS, WON))


def pope_table(answers: Sequence[str], items: Sequence[BenchItem]) -> dict[str, metrics.Pope]:
    """POPE's numbers in its three settings, from the answers of one policy."""
    table = {}
    for setting in SETTINGS:
        sets = ("objects yes", f"objects {setting}")
        rows = [_pope(text, item, "") for text, item in zip(answers, items, strict=True) if item.set in sets]
        sums = np.array(rows).reshape(-1, 7).sum(0)
        table[setting] = metrics.pope(sums[1:6], sums[6])
    return table
