"""Self-improvement (arXiv 2502.10391, §5.4): a policy answers, a signal ranks its answers, the pairs train the policy.

A condition is one such experiment. All conditions take the same queries in the same order and the same optimizer
steps; several rounds share them out, each round drawn from the policy that the one before left, which is its reference
too. What was drawn, scored and trained is found again by its content, so a killed experiment goes on.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import lcm
from typing import ClassVar, NamedTuple

import transformers as hf

from mmrlhf_core.data import records, storage
from mmrlhf_core.data.records import Pair, Query, Record, Response, column
from mmrlhf_core.models import policy, prompts
from mmrlhf_core.rollout import generate, sampling
from mmrlhf_core.rollout.endpoint import Endpoint
from mmrlhf_core.rollout.sampling import Rated, SampledAnswers, Sampling
from mmrlhf_core.training.dataset import RankedRow
from mmrlhf_core.training.losses import Objective
from mmrlhf_study.chapters import choices
from mmrlhf_study.chapters.experiment import RUNS, Arm, Experiment
from mmrlhf_study.miniworld import annotators

RUN_NAME = "self"  # what runs of this module are called
PEOPLE, TRUTH, RANDOM = "people", "truth", "random"
TRAINED, READ_TWICE = 3, 2  # passes of a token: forward and backward; a critique is written, then read with its score


@dataclass(frozen=True)
class Condition:
    """One experiment: which signal ranks, how many answers per query, in how many rounds."""

    arm: str
    n: int
    rounds: int = 1

    @property
    def name(self) -> str:
        if self.arm == PEOPLE:
            return self.arm
        return f"{self.arm}, n {self.n}" + (f", {self.rounds} rounds" if self.rounds > 1 else "")


def conditions(
    arms: Sequence[str], n: int, fewer: Sequence[int], sized: Sequence[str], rounds: Sequence[int], repeated: str
) -> list[Condition]:
    """Every arm with n answers in one round; the arms `sized` with fewer answers; the arm `repeated` in more rounds."""
    if unknown := [arm for arm in (*sized, *filter(None, [repeated])) if arm not in arms]:
        raise ValueError(f"{unknown} are no arms of this experiment; the arms are {', '.join(arms)}.")
    if wrong := [k for k in fewer if not 1 <= k < n]:
        raise ValueError(f"Fewer answers {wrong} have to lie between 1 and {n - 1}, one less than n.")
    found = [Condition(arm, n) for arm in arms]
    found += [Condition(arm, k) for arm in sized for k in fewer]
    return found + [Condition(repeated, n, count) for count in rounds if repeated]


@dataclass(frozen=True, slots=True)
class ConditionRun(Record):
    """What one condition with one seed came to; passes count tokens through a text model, a trained one three times."""

    VERSION: ClassVar[int] = 1

    name: str = column("the condition", filled=True)
    arm: str = column("what ranked the answers", filled=True)
    n: int = column("answers per query")
    rounds: int = column("rounds")
    seed: int = column("number of the seed, from 0")
    model: str = column("folder of the trained model", filled=True)
    steps: int = column("optimizer steps")
    queries: int = column("queries")
    paired: int = column("queries that gave a pair")
    alike: int = column("queries without a pair because there was one answer, or all were equal")
    tied: int = column("queries without a pair because the scores were tied")
    unusable: int = column("queries without a pair because no answer was whole and not blank")
    sampled: int = column("passes for drawing answers")
    rated: int = column("passes for critiques and scores")
    trained: int = column("passes for training, with the reference's")


class Signal(NamedTuple):
    """Scores of the answers to one query, and the passes that each of them and the question took."""

    scores: tuple[float, ...]
    passes: tuple[int, ...]
    question: int = 0


@dataclass(frozen=True)
class Lab:
    """What all conditions share. `rewards` names the reward model of each arm that has one."""

    rewards: Mapping[str, str]
    sampling: Sampling
    critique_tokens: int
    pairs: str
    tie: float
    training: Experiment  # from the base; each round puts its own model, rows and reference in
    objective: Objective
    folder: str
    engine: Endpoint | None = None  # serves the base policy

    @property
    def base(self) -> str:
        return self.training.job.model

    @property
    def media(self) -> str:
        return self.training.job.media

    @property
    def frames(self) -> int:
        return self.training.job.frames

    @cached_property
    def processor(self) -> hf.ProcessorMixin:
        return self.training.processor

    def draw(self, model: str, queries: Sequence[Query], seed: int, shown: bool = True) -> list[SampledAnswers]:
        """Answers of a model of this lab, with a bar if `shown`; seed 0 is the lab's own."""
        source = self.engine if self.engine and model == self.base else model
        how = Sampling(**asdict(self.sampling) | {"seed": self.sampling.seed + seed})
        return sampling.draw(source, queries, self.media, self.frames, how, f"{self.folder}/answers", "samples" * shown)

    def signal(
        self, arm: str, queries: Sequence[Query], answers: Sequence[SampledAnswers], seed: int, shown: bool = True
    ) -> list[Signal]:
        """What an arm thinks of answers; truth and chance cost nothing."""
        if arm == TRUTH:
            return [free(one, true_score) for one in answers]
        if arm == RANDOM:
            return [free(one, lambda query, text: chance(seed, query, text)) for one in answers]
        return [
            Signal(one.scores, tuple(READ_TWICE * count for count in one.tokens), READ_TWICE * said.prompt)
            for one, said in zip(self.rated(arm, queries, answers, shown), answers, strict=True)
        ]

    def rated(
        self, arm: str, queries: Sequence[Query], answers: Sequence[SampledAnswers], shown: bool = True
    ) -> list[Rated]:
        """Scores and critiques of an arm's reward model."""
        if arm not in self.rewards:
            raise ValueError(f"Arm {arm!r} has no reward model; there are {', '.join(self.rewards)}, truth and random.")
        where = (self.media, self.frames, self.critique_tokens, f"{self.folder}/scores")
        return sampling.rate(self.rewards[arm], queries, answers, *where, desc=arm * shown)


def free(answers: SampledAnswers, give: Callable[[str, str], float]) -> Signal:
    """A signal that costs nothing."""
    return Signal(tuple(give(answers.query, text) for text in answers.texts), (0,) * len(answers.texts))


def true_score(query: str, text: str) -> float:
    """The truth score of an answer to a query of MiniWorld; a planted near-duplicate asks what its original asks."""
    return float(annotators.verdict(text, query.partition("~")[0]).score)


def chance(seed: int, query: str, text: str) -> float:
    """A number in [0, 1) that knows nothing; equal answers to a query share it."""
    return float(generate.stream(seed, f"chance {query} {text}", 0, 1)[0])


def select(queries: Sequence[Query], count: int, multiple: int, seed: int) -> list[Query]:
    """Up to `count` queries in an order that only the seed and their names decide, cut to a multiple of `multiple`."""
    most = min(count, len(queries)) // multiple * multiple
    if not most:
        raise ValueError(
            f"{min(count, len(queries))} queries cannot be shared out: batches and rounds need a multiple of "
            f"{multiple}. Take more queries, smaller batches or fewer rounds."
        )
    order = sorted(queries, key=lambda query: storage.sha256_bytes(f"select {seed} {query.id}".encode()))
    return order[:most]


# ---------------------------------------------------------------- rows


def people(
    queries: Sequence[Query], responses: Sequence[Response], pairs: Sequence[Pair], how: str
) -> dict[str, RankedRow]:
    """Rows of the annotated pairs of each query: all, or the one that people put furthest apart."""
    texts = {one.id: one.text for one in responses}
    found = {}
    for query in queries:
        mine = [pair for pair in pairs if pair.query == query.id]
        if not mine:
            raise ValueError(f"Query {query.id!r} has no annotated pair; select among queries that have some.")
        kept = mine if how == "all" else [max(mine, key=lambda pair: (pair.steps, pair.margin))]
        names = list(dict.fromkeys(name for pair in kept for name in (pair.chosen, pair.rejected)))
        places = [(names.index(pair.chosen), names.index(pair.rejected)) for pair in kept]
        found[query.id] = choices.row(query, [texts[name] for name in names], places)
    return found


class Ranked(NamedTuple):
    """Rows of one round, why some have no pair, and the passes behind them."""

    rows: list[RankedRow]
    without: list[str]
    sampled: int
    rated: int


def rank(lab: Lab, condition: Condition, model: str, queries: Sequence[Query], seed: int) -> Ranked:
    """Draw, score and pair the first n answers to each query."""
    answers = lab.draw(model, queries, seed, shown=False)
    signals = lab.signal(condition.arm, queries, answers, seed, shown=False)
    found, n = Ranked([], [], 0, 0), condition.n
    for query, said, signal in zip(queries, answers, signals, strict=True):
        texts, scores = said.texts[:n], signal.scores[:n]
        tie = lab.tie if condition.arm in lab.rewards else 0.0
        chosen = choices.choose(texts, said.finished[:n], scores, lab.pairs, tie)
        different = dict(zip(texts, signal.passes[:n], strict=True))
        found.rows.append(choices.row(query, texts, chosen.pairs))
        found.without.append(chosen.without)
        found = found._replace(
            sampled=found.sampled + said.prompt + sum(said.tokens[:n]),
            rated=found.rated + signal.question + sum(different.values()),
        )
    return found


def step(lab: Lab) -> int:
    """Queries of one optimizer step."""
    how = lab.training.job.training
    return how["per_device_train_batch_size"] * how["gradient_accumulation_steps"] * lab.training.processes


def multiple(lab: Lab, conditions: Iterable[Condition]) -> int:
    """Of what the number of queries has to be a multiple, so that every round of every condition is whole steps."""
    return step(lab) * lcm(*(one.rounds for one in conditions))


def epochs(lab: Lab) -> int:
    """Passes of each round over its queries."""
    return round(lab.training.job.training["num_train_epochs"])


def passes(lab: Lab, rows: Sequence[RankedRow], prompt_tokens: Mapping[str, int]) -> int:
    """Passes of training on rows, each epoch, and of the reference once."""
    size = 0
    for row in rows:
        size += prompt_tokens[row.id] + sum(len(prompts.answer_ids(lab.processor, text)) for text in row.responses)
    return size * (TRAINED * epochs(lab) + 1)


# ---------------------------------------------------------------- runs


def train(lab: Lab, model: str, rows: Sequence[RankedRow], seed: int) -> str:
    """The folder of the model that training on rows leaves; without any pair it is the model itself."""
    if not any(row.winners for row in rows):
        return model
    name = storage.sha256_bytes(repr(rows).encode())[:16]
    records.write(f"{lab.folder}/rows/{name}.parquet", rows)
    own = replace(lab.training.job, model=model, reference=f"{lab.folder}/reference")
    whole = Experiment(own, f"{lab.folder}/rows", lab.training.layout, lab.training.processes)
    run = whole.run(Arm(RUN_NAME, lab.objective, name), seed)
    folder = run.folder.relative_to(storage.root())
    if not own.lora:
        return f"{folder}/final"
    merged = f"{folder}/merged"  # the next round and the evaluation read one model, not a base with adapters
    if not storage.path(merged).is_dir():
        policy.save(merged, whole.policy(run))
    return merged


def keep(folder: str, run: ConditionRun, base: str) -> None:
    """Put the model of a run where later chapters load it, with the passes it took in `training.json`.

    One that never trained is a reference to the base.
    """
    if run.model == base:
        policy.refer(folder, base)
    else:
        with storage.writing(folder) as temporary:
            shutil.copytree(storage.path(run.model), temporary)
            storage.write_json(temporary / "training.json", {"passes": run.sampled + run.rated + run.trained})


def clear(lab: Lab) -> None:
    """Remove what the lab kept for going on: answers, scores, rows, reference and runs."""
    for place in (storage.path(lab.folder), *storage.path(RUNS).glob(f"{RUN_NAME}-*")):
        storage.remove(place)


def run(
    lab: Lab, condition: Condition, number: int, queries: Sequence[Query], annotated: Mapping[str, RankedRow],
    prompt_tokens: Mapping[str, int],
) -> ConditionRun:  # fmt: skip
    """One condition with seed `number`. `prompt_tokens` holds the length of each query's prompt."""
    model, steps, counts, spent = lab.base, 0, dict.fromkeys(("", *choices.WITHOUT), 0), [0, 0, 0]
    for part in range(condition.rounds):
        mine = queries[part :: condition.rounds]
        if condition.arm == PEOPLE:
            made = Ranked([annotated[query.id] for query in mine], [""] * len(mine), 0, 0)
        else:
            made = rank(lab, condition, model, mine, number)
        before, model = model, train(lab, model, made.rows, lab.sampling.seed + number)
        for why in made.without:
            counts[why] += 1
        trained = passes(lab, made.rows, prompt_tokens) if model != before else 0
        steps += len(mine) // step(lab) * epochs(lab) if model != before else 0
        spent = [a + b for a, b in zip(spent, (made.sampled, made.rated, trained), strict=True)]
    head = (condition.name, condition.arm, condition.n, condition.rounds, number, model, steps, len(queries))
    return ConditionRun(*head, *counts.values(), *spent)
