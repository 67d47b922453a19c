"""Self-improvement (arXiv 2502.10391, §5.4): a policy answers, a signal ranks its answers, the pairs train the policy.

All conditions of an experiment use the same queries in the same order; a round without any pair is not trained. Rounds
split the queries: in each round the policy of the previous round answers, and is the reference. Answers, scores and
runs are cached by content, so an interrupted experiment resumes.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations
from math import inf, lcm
from typing import ClassVar, NamedTuple

import transformers as hf

from mmrlhf_core.data import records, storage
from mmrlhf_core.data.records import Pair, Query, Record, Response, column
from mmrlhf_core.models import policy, prompts
from mmrlhf_core.rollout import generate
from mmrlhf_core.training.dataset import RankedRow
from mmrlhf_core.training.losses import Objective
from mmrlhf_study.annotation import sampling
from mmrlhf_study.annotation.endpoint import Endpoint
from mmrlhf_study.annotation.sampling import Rated, SampledAnswers, Sampling
from mmrlhf_study.chapters.experiment import RUNS_FOLDER, Arm, Experiment
from mmrlhf_study.miniworld import annotators

RUN_NAME = "self"  # prefix of the run folders of this module
PEOPLE, TRUTH, RANDOM = "people", "truth", "random"
TRAINED, READ_TWICE = 3, 2  # token passes: forward 1, backward 2; a critique is written, then read
PAIR_CHOICES = ("hardest", "all")  # best against worst; all pairs with different scores
ONE_ANSWER, TIE, NO_BETTER = "one answer", "tie", "nothing to choose"  # reasons why a query gives no pair


# ---------------------------------------------------------------- from scored answers to pairs


class Chosen(NamedTuple):
    """Pairs of indices into the answers of a query; `without`: why the query has no pair."""

    pairs: tuple[tuple[int, int], ...]
    without: str = ""


def choose_pairs(
    texts: Sequence[str], finished: Sequence[bool], scores: Sequence[float], how: str = "hardest", tie: float = 0.0
) -> Chosen:
    """(better, worse) indices of answers whose scores differ by more than `tie`.

    Repeated answers count once; among equal scores the first wins. A blank answer is below all others, whatever its
    score. A truncated answer is never the better one: it would teach the policy to stop early.
    """
    if how not in PAIR_CHOICES or tie < 0:
        raise ValueError(
            f"`pairs` is {how!r} and `tie` {tie}; use {' or '.join(PAIR_CHOICES)}, and a tie of 0 or more."
        )
    if not len(texts) == len(finished) == len(scores):
        raise ValueError(
            f"{len(texts)} answers, {len(finished)} end flags and {len(scores)} scores; give one for each."
        )
    kept = [k for k, text in enumerate(texts) if text not in texts[:k]]
    value = {k: scores[k] if texts[k].strip() else -inf for k in kept}
    good = [k for k in kept if finished[k] and value[k] > -inf]
    if len(kept) < 2:
        return Chosen((), ONE_ANSWER)
    if not good:
        return Chosen((), NO_BETTER)
    if how == "all":
        pairs = [(a, b) for a, b in permutations(kept, 2) if a in good and value[a] - value[b] > tie]
    else:
        best, worst = max(good, key=value.get), min(kept, key=value.get)
        pairs = [(best, worst)] if value[best] - value[worst] > tie else []
    return Chosen(tuple(pairs), "" if pairs else TIE)


def annotated_rows(
    queries: Sequence[Query], responses: Sequence[Response], pairs: Sequence[Pair], how: str
) -> dict[str, RankedRow]:
    """Training rows per query: all annotated pairs, or the one ranked furthest apart."""
    texts, rows = {response.id: response.text for response in responses}, {}
    for query in queries:
        kept = [pair for pair in pairs if pair.query == query.id]
        if not kept:
            raise ValueError(f"Query {query.id!r} has no annotated pair; select only annotated queries.")
        if how != "all":
            kept = [max(kept, key=lambda pair: (pair.steps, pair.margin))]
        rows[query.id] = RankedRow.of(query, texts, [(pair.chosen, pair.rejected) for pair in kept])
    return rows


# ---------------------------------------------------------------- conditions


@dataclass(frozen=True)
class Condition:
    """One condition: the ranking signal (arm), answers per query, and rounds."""

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
    """All arms with n answers and one round, `sized` arms with fewer answers, and `repeated` with more rounds."""
    if unknown := [arm for arm in (*sized, *filter(None, [repeated])) if arm not in arms]:
        raise ValueError(f"Unknown arms {unknown}; choose from {', '.join(arms)}.")
    if wrong := [k for k in fewer if not 1 <= k < n]:
        raise ValueError(f"`fewer` has {wrong}; values must lie between 1 and {n - 1}.")
    every = [Condition(arm, n) for arm in arms]
    every += [Condition(arm, k) for arm in sized for k in fewer]
    return every + [Condition(repeated, n, count) for count in rounds if repeated]


@dataclass(frozen=True, slots=True)
class ConditionRun(Record):
    """The result of one condition with one seed. Passes are token passes; a trained token counts 3."""

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
    alike: int = column("queries without a pair: all answers equal")
    tied: int = column("queries without a pair: scores tied")
    unusable: int = column("queries without a pair: every answer blank or cut off")
    sampled: int = column("passes for drawing answers")
    rated: int = column("passes for critiques and scores")
    trained: int = column("token passes for training and for the reference")


def select_queries(queries: Sequence[Query], count: int, multiple: int, seed: int) -> list[Query]:
    """Up to `count` queries, a multiple of `multiple`, in an order fixed by seed and ids."""
    most = min(count, len(queries)) // multiple * multiple
    if not most:
        raise ValueError(
            f"{min(count, len(queries))} queries are too few: batches and rounds need a multiple of "
            f"{multiple}. Take more queries, smaller batches or fewer rounds."
        )
    order = sorted(queries, key=lambda query: storage.sha256_bytes(f"select {seed} {query.id}".encode()))
    return order[:most]


# ---------------------------------------------------------------- signals


class SignalScores(NamedTuple):
    """Scores of the answers to one query, with the token passes per answer and for the question."""

    scores: tuple[float, ...]
    passes: tuple[int, ...]
    question: int = 0


def true_score(query: str, text: str) -> float:
    """Truth score of an answer to a MiniWorld query; near-duplicates use the original question."""
    return float(annotators.verdict(text, query.partition("~")[0]).score)


def chance(seed: int, query: str, text: str) -> float:
    """A random number in [0, 1); equal answers to a query share it."""
    return float(generate.stream(seed, f"chance {query} {text}", 0, 1)[0])


def free_signal(answers: SampledAnswers, score: Callable[[str, str], float]) -> SignalScores:
    """A signal without model cost."""
    return SignalScores(tuple(score(answers.query, text) for text in answers.texts), (0,) * len(answers.texts))


@dataclass
class RankedAnswers:
    """Training rows of one round, reasons for missing pairs, and token passes."""

    rows: list[RankedRow]
    without: list[str]
    sampled: int = 0
    rated: int = 0


@dataclass(frozen=True)
class SelfTraining:
    """Settings shared by all conditions, and the methods of a run.

    `rewards`: reward-model folder per arm. `training`: starts at the base; each round replaces model, rows and
    reference. `engine`: serves the base policy.
    """

    rewards: Mapping[str, str]
    sampling: Sampling
    critique_tokens: int
    pairs: str
    tie: float
    training: Experiment
    objective: Objective
    folder: str
    engine: Endpoint | None = None

    @property
    def base(self) -> str:
        return self.training.job.model

    @cached_property
    def processor(self) -> hf.ProcessorMixin:
        return self.training.processor

    @property
    def step_queries(self) -> int:
        """Queries of one optimizer step."""
        how = self.training.job.training
        return how["per_device_train_batch_size"] * how["gradient_accumulation_steps"] * self.training.processes

    @property
    def epochs(self) -> int:
        """Epochs of each round over its queries."""
        return round(self.training.job.training["num_train_epochs"])

    def query_multiple(self, conditions: Iterable[Condition]) -> int:
        """The number of queries must be a multiple of this number: every round then has whole steps."""
        return self.step_queries * lcm(*(condition.rounds for condition in conditions))

    def draw(self, model: str, queries: Sequence[Query], seed: int, shown: bool = True) -> list[SampledAnswers]:
        """Answers of a model; `seed` is added to the experiment's seed. With `shown` there is a progress bar."""
        source = self.engine if self.engine and model == self.base else model
        how, own = replace(self.sampling, seed=self.sampling.seed + seed), self.training.job
        return sampling.draw(source, queries, own.media, own.frames, how, f"{self.folder}/answers", "samples" * shown)

    def rated(
        self, arm: str, queries: Sequence[Query], answers: Sequence[SampledAnswers], shown: bool = True
    ) -> list[Rated]:
        """Scores and critiques of an arm's reward model."""
        if arm not in self.rewards:
            raise ValueError(f"Arm {arm!r} has no reward model; arms with one: {', '.join(self.rewards)}.")
        own = self.training.job
        where = (own.media, own.frames, self.critique_tokens, f"{self.folder}/scores")
        return sampling.rate(self.rewards[arm], queries, answers, *where, desc=arm * shown)

    def signal(
        self, arm: str, queries: Sequence[Query], answers: Sequence[SampledAnswers], seed: int, shown: bool = True
    ) -> list[SignalScores]:
        """An arm's scores of answers; truth and chance have no model cost."""
        if arm == TRUTH:
            return [free_signal(one, true_score) for one in answers]
        if arm == RANDOM:
            return [free_signal(one, lambda query, text: chance(seed, query, text)) for one in answers]
        return [
            SignalScores(rated.scores, tuple(READ_TWICE * count for count in rated.tokens), READ_TWICE * sampled.prompt)
            for rated, sampled in zip(self.rated(arm, queries, answers, shown), answers, strict=True)
        ]

    def rank(self, condition: Condition, model: str, queries: Sequence[Query], seed: int) -> RankedAnswers:
        """Draw, score and pair the first n answers to each query."""
        answers = self.draw(model, queries, seed, shown=False)
        signals = self.signal(condition.arm, queries, answers, seed, shown=False)
        n, tie = condition.n, self.tie if condition.arm in self.rewards else 0.0
        ranked = RankedAnswers([], [])
        for query, sampled, signal in zip(queries, answers, signals, strict=True):
            texts = sampled.texts[:n]
            chosen = choose_pairs(texts, sampled.finished[:n], signal.scores[:n], self.pairs, tie)
            ranked.rows.append(RankedRow.of(query, dict(enumerate(texts)), chosen.pairs))
            ranked.without.append(chosen.without)
            ranked.sampled += sampled.prompt + sum(sampled.tokens[:n])
            ranked.rated += signal.question + sum(dict(zip(texts, signal.passes[:n], strict=True)).values())
        return ranked

    def passes(self, rows: Sequence[RankedRow], prompt_tokens: Mapping[str, int]) -> int:
        """Token passes: training in every epoch, the reference once."""
        size = 0
        for row in rows:
            size += prompt_tokens[row.id] + sum(len(prompts.answer_ids(self.processor, text)) for text in row.responses)
        return size * (TRAINED * self.epochs + 1)

    def train(self, model: str, rows: Sequence[RankedRow], seed: int) -> str:
        """Folder of the trained model; without any pair, of the given model."""
        if not any(row.winners for row in rows):
            return model
        name = storage.sha256_bytes(repr(rows).encode())[:16]
        records.write(f"{self.folder}/rows/{name}.parquet", rows)
        own = replace(self.training.job, model=model, reference=f"{self.folder}/reference")
        experiment = replace(self.training, job=own, rows=f"{self.folder}/rows", encoded={})
        run = experiment.run(Arm(RUN_NAME, self.objective, name), seed)
        folder = run.folder.relative_to(storage.root())
        if not own.lora:
            return f"{folder}/final"
        merged = f"{folder}/merged"  # later steps need merged weights, not adapters
        if not storage.path(merged).is_dir():
            policy.save(merged, experiment.policy(run))
        return merged

    def run(
        self, condition: Condition, number: int, queries: Sequence[Query], annotated: Mapping[str, RankedRow],
        prompt_tokens: Mapping[str, int],
    ) -> ConditionRun:  # fmt: skip
        """One condition with seed `number`. `prompt_tokens` holds the length of each query's prompt."""
        model, steps, sampled, rated, trained, without = self.base, 0, 0, 0, 0, Counter()
        for part in range(condition.rounds):
            share = queries[part :: condition.rounds]
            if condition.arm == PEOPLE:
                ranked = RankedAnswers([annotated[query.id] for query in share], [""] * len(share))
            else:
                ranked = self.rank(condition, model, share, number)
            before, model = model, self.train(model, ranked.rows, self.sampling.seed + number)
            without.update(ranked.without)
            sampled, rated = sampled + ranked.sampled, rated + ranked.rated
            if model != before:
                trained += self.passes(ranked.rows, prompt_tokens)
                steps += len(share) // self.step_queries * self.epochs
        return ConditionRun(
            condition.name, condition.arm, condition.n, condition.rounds, number, model, steps, len(queries),
            without[""], without[ONE_ANSWER], without[TIE], without[NO_BETTER], sampled, rated, trained,
        )  # fmt: skip

    def clear(self) -> None:
        """Remove the cache that lets an interrupted experiment resume."""
        for place in (storage.path(self.folder), *storage.path(RUNS_FOLDER).glob(f"{RUN_NAME}-*")):
            storage.remove(place)


def keep_model(folder: str, run: ConditionRun, base: str) -> None:
    """Save a run's model for later chapters, with its token passes in `training.json`.

    A run without any pair leaves a reference to the base.
    """
    if run.model == base:
        policy.refer(folder, base)
    else:
        with storage.writing(folder) as temporary:
            shutil.copytree(storage.path(run.model), temporary)
            storage.write_json(temporary / "training.json", {"passes": run.sampled + run.rated + run.trained})
