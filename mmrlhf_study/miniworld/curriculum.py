"""What MiniWorld's models learn from: the examples of the base models, and the balance of verdicts in critiques.

MiniWorld's critiques look claims up, and one verdict is more frequent. A model that always writes the frequent verdict
does well without looking at the picture. `ClaimBalance` leaves some claims of the frequent verdict out of the loss (not
out of the text).
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from random import Random

import torch
import transformers as hf
from torch import Tensor

from mmrlhf_core.data.annotated import Annotated
from mmrlhf_core.models.prompts import Prompt, spread
from mmrlhf_core.training import reward_dataset
from mmrlhf_core.training.sft import Exchange
from mmrlhf_study.miniworld import questions, render, scenes
from mmrlhf_study.miniworld.questions import Question
from mmrlhf_study.miniworld.scenes import Scene

_LOOKUP = re.compile(r"[^?:.]*\?[^:.]*: (right|wrong) \.")  # `what is there ? claim : verdict .`


@dataclass(frozen=True)
class Mix:
    """Shares of the examples: descriptions, claims to verify, and questions for the rest.

    `terse` is the share of answers without evidence. `obliging` is the share of requests that should be declined and
    are answered in the data. A model learns both from its data.
    """

    describe: float = 0.25
    verify: float = 0.35
    terse: float = 0.0
    obliging: float = 0.0


def words() -> list[str]:
    """The words of MiniWorld for the tokenizer: letters and digits, or one other character."""
    return sorted({piece for word in questions.vocabulary() for piece in re.findall(r"\w+|[^\w\s]", word)})


def prompt(question: Question, frames: int) -> Prompt:
    """The question with its pictures; a clip is cut to `frames` frames."""
    images = tuple(render.render(question.scene))
    if question.scene.family == "clip":
        return Prompt(question.prompt, clip=spread(images, frames))
    return Prompt(question.prompt, images=images)


def draw(rng: Random, scene: Scene, mix: Mix) -> tuple[Question, str]:
    """A random question about a scene, and the answer to learn."""
    roll, names = rng.random(), questions.tasks(scene)
    if roll < mix.verify:
        question = questions.verify(scene, rng.randrange(10**6))
    elif roll < mix.verify + mix.describe and "describe" in names:
        question = questions.ask(scene, "describe")
    else:
        name = rng.choice([name for name in names if name != "describe"])
        form = "mcq" if name in questions.tasks(scene, "mcq") and rng.random() < 0.3 else "open"
        question = questions.ask(scene, name, form)
    return question, target(rng, question, mix)


def target(rng: Random, question: Question, mix: Mix) -> str:
    """The answer to learn: the reference answer, without evidence, or with an answer where it should decline."""
    declines = question.decline and rng.random() >= mix.obliging
    if question.decline and not declines:
        place = "bottom" if question.key[:1].isdigit() else "middle"
        facts = [*question.facts, scenes.Fact(place, question.scene.at(place))]
        return questions.compose("sign", facts, question.key)
    if question.key and question.task != "verify" and rng.random() < mix.terse:
        return questions.compose(question.scene.family, [], question.key, declines)
    return question.answer


def lesson(scene: Scene, mix: Mix, each: int, frames: int, seed: int) -> list[Exchange]:
    """Up to `each` different examples about one scene, which share its pictures."""
    rng = Random(f"lesson {seed} {scene.family} {scene.seed}")
    drawn = [draw(rng, scene, mix) for _ in range(3 * each)]
    answers = {question.prompt: answer for question, answer in drawn}
    shown = prompt(drawn[0][0], frames)
    return [Exchange(replace(shown, text=text), answer) for text, answer in islice(answers.items(), each)]


def train_scenes(counts: Iterable[int], seed: int) -> list[Scene]:
    """Training scenes in random order; `counts` has a number for each family, in the order of `scenes.FAMILIES`."""
    seeds = scenes.TRAIN_SEEDS[seed % 1000 * 10**4 :]
    pairs = zip(scenes.FAMILIES, counts, strict=True)
    drawn = [scene for family, n in pairs for scene in scenes.fresh(family, seeds, n, set())]
    return Random(seed).sample(drawn, len(drawn))


# ---------------------------------------------------------------- verdicts in critiques


def lookups(critiques: Iterable[str]) -> Counter[str]:
    """How many claims the critiques look up with the verdict `right`, and with `wrong`."""
    return Counter(verdict for text in critiques for verdict in _LOOKUP.findall(text))


def balanced_shares(critiques: Iterable[str], balance: float) -> dict[str, float]:
    """The share of the claims of each verdict that enter the loss: 1 for the rarer verdict, less for the other.

    With `balance` 0 all claims enter the loss; with 1 equally many of both verdicts.
    """
    counts = lookups(critiques)
    fewest = min(counts["right"], counts["wrong"])
    return {verdict: 1 - balance * (1 - fewest / max(counts[verdict], 1)) for verdict in ("right", "wrong")}


def thinned(processor: hf.ProcessorMixin, critique: str, shares: dict[str, float], name: str) -> Tensor:
    """Which tokens of a critique enter the loss, bool [tokens]; `name` seeds which claims are left out."""
    settings = {"add_special_tokens": False, "split_special_tokens": True, "return_offsets_mapping": True}
    ends = torch.tensor([end for _, end in processor.tokenizer(critique, **settings).offset_mapping])
    kept, rng = torch.ones(len(ends), dtype=torch.bool), Random(f"claims {name}")
    for claim in _LOOKUP.finditer(critique):
        if rng.random() >= shares[claim[1]]:
            kept &= (ends <= claim.start()) | (ends > claim.end())
    return kept


class ClaimBalance:
    """Which tokens of a critique enter the loss, as `RewardExamples` asks for it; `shares` by verdict."""

    def __init__(
        self, processor: hf.ProcessorMixin, data: Iterable[Annotated], critiques: str, balance: float, seed: int
    ) -> None:
        self.processor, self.seed = processor, seed
        texts = (text for annotated in data for text in reward_dataset.taught(annotated, critiques).values() if text)
        self.shares = balanced_shares(texts, balance)

    def __call__(self, query: str, response: str, critique: str) -> Tensor:
        return thinned(self.processor, critique, self.shares, f"{self.seed} {query} {response}")
