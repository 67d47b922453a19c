"""Self-improvement (arXiv 2502.10391, §5.4): a policy answers, a signal ranks its answers, the pairs train the policy.

All conditions of an experiment take the same queries in the same order and the same optimizer steps. Several rounds
share the queries out: the answers of each round come from the policy that the previous round left, which is also the
round's reference. Answers, scores and runs are found again by their content, so an interrupted experiment continues.
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
TRAINED, READ_TWICE = 3, 2  # passes of a token: forward and backward; a critique is written, then read with its score
PAIR_CHOICES = ("hardest", "all")  # best against worst; every two of different score
ONE_ANSWER, TIE, NO_BETTER = "one answer", "tie", "nothing to choose"  # reasons why a query gives no pair


# ---------------------------------------------------------------- from scored answers to pairs


class Chosen(NamedTuple):
    """Pairs of one query as places in its answers; `without` says why there is none."""

    pairs: tuple[tuple[int, int], ...]
    without: str = ""


def choose_pairs(
    texts: Sequence[str], finished: Sequence[bool], scores: Sequence[float], how: str = "hardest", tie: float = 0.0
) -> Chosen:
    """(better, worse) places of K answers whose scores are more than `tie` apart.

    Of equal answers only the first counts, and of equal scores the first is taken. A blank answer is below all others,
    whatever its score. An answer that was cut off is never the better one: training on it would teach to stop there.
    """
    if how not in PAIR_CHOICES or tie < 0:
        raise ValueError(
            f"Pairs {how!r} with ties up to {tie} are not known; give {' or '.join(PAIR_CHOICES)} and 0 or more."
        )
    if not len(texts) == len(finished) == len(scores):
        raise ValueError(f"{len(texts)} answers, {len(finished)} ends and {len(scores)} scores; give one for each.")
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
    """Rows of the annotated pairs of each query: of all, or of the pair that annotators put furthest apart."""
    texts, rows = {response.id: response.text for response in responses}, {}
    for query in queries:
        kept = [pair for pair in pairs if pair.query == query.id]
        if not kept:
            raise ValueError(f"Query {query.id!r} has no annotated pair; select among queries that have some.")
        if how != "all":
            kept = [max(kept, key=lambda pair: (pair.steps, pair.margin))]
        rows[query.id] = RankedRow.of(query, texts, [(pair.chosen, pair.rejected) for pair in kept])
    return rows


# ---------------------------------------------------------------- conditions


@dataclass(frozen=True)
class Condition:
    """One cell of the design: what ranks the answers (the arm), how many answers per query, in how many rounds."""

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
    every = [Condition(arm, n) for arm in arms]
    every += [Condition(arm, k) for arm in sized for k in fewer]
    return every + [Condition(repeated, n, count) for count in rounds if repeated]


@dataclass(frozen=True, slots=True)
class ConditionRun(Record):
    """The result of one condition with one seed. Passes count tokens through a text model, a trained token 3 times."""

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


def select_queries(queries: Sequence[Query], count: int, multiple: int, seed: int) -> list[Query]:
    """Up to `count` queries in an order that only the seed and their names decide, cut to a multiple of `multiple`."""
    most = min(count, len(queries)) // multiple * multiple
    if not most:
        raise ValueError(
            f"{min(count, len(queries))} queries cannot be shared out: batches and rounds need a multiple of "
            f"{multiple}. Take more queries, smaller batches or fewer rounds."
        )
    order = sorted(queries, key=lambda query: storage.sha256_bytes(f"select {seed} {query.id}".encode()))
    return order[:most]


# ---------------------------------------------------------------- signals


class SignalScores(NamedTuple):
    """A signal's scores of the answers to one query, and the passes that each answer and the question took."""

    scores: tuple[float, ...]
    passes: tuple[int, ...]
    question: int = 0


def true_score(query: str, text: str) -> float:
    """The truth score of an answer to a query of MiniWorld; a planted near-duplicate asks what its original asks."""
    return float(annotators.verdict(text, query.partition("~")[0]).score)


def chance(seed: int, query: str, text: str) -> float:
    """A random number in [0, 1); equal answers to a query share it."""
    return float(generate.stream(seed, f"chance {query} {text}", 0, 1)[0])


def free_signal(answers: SampledAnswers, score: Callable[[str, str], float]) -> SignalScores:
    """A signal that takes no pass."""
    return SignalScores(tuple(score(answers.query, text) for text in answers.texts), (0,) * len(answers.texts))


@dataclass
class RankedAnswers:
    """The rows of one round, why some have no pair, and the passes behind them."""

    rows: list[RankedRow]
    without: list[str]
    sampled: int = 0
    rated: int = 0


@dataclass(frozen=True)
class SelfTraining:
    """Everything that the conditions of one experiment share, and the steps of a run.

    `rewards` holds the folder of the reward model of each arm that has one; `training` starts from the base, and each
    round puts in its own model, rows and reference; `engine` serves the base policy.
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
        """Passes of each round over its queries."""
        return round(self.training.job.training["num_train_epochs"])

    def query_multiple(self, conditions: Iterable[Condition]) -> int:
        """The number of queries has to be a multiple of this, so that every round of every condition is whole steps."""
        return self.step_queries * lcm(*(condition.rounds for condition in conditions))

    def draw(self, model: str, queries: Sequence[Query], seed: int, shown: bool = True) -> list[SampledAnswers]:
        """Answers of a model; `seed` is added to the experiment's own. With `shown` there is a progress bar."""
        source = self.engine if self.engine and model == self.base else model
        how, own = replace(self.sampling, seed=self.sampling.seed + seed), self.training.job
        return sampling.draw(source, queries, own.media, own.frames, how, f"{self.folder}/answers", "samples" * shown)

    def rated(
        self, arm: str, queries: Sequence[Query], answers: Sequence[SampledAnswers], shown: bool = True
    ) -> list[Rated]:
        """Scores and critiques of an arm's reward model."""
        if arm not in self.rewards:
            raise ValueError(f"Arm {arm!r} has no reward model; there are {', '.join(self.rewards)}, truth and random.")
        own = self.training.job
        where = (own.media, own.frames, self.critique_tokens, f"{self.folder}/scores")
        return sampling.rate(self.rewards[arm], queries, answers, *where, desc=arm * shown)

    def signal(
        self, arm: str, queries: Sequence[Query], answers: Sequence[SampledAnswers], seed: int, shown: bool = True
    ) -> list[SignalScores]:
        """An arm's scores of answers; truth and chance take no pass."""
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
        """Passes of training on rows, each epoch, and of the reference once."""
        size = 0
        for row in rows:
            size += prompt_tokens[row.id] + sum(len(prompts.answer_ids(self.processor, text)) for text in row.responses)
        return size * (TRAINED * self.epochs + 1)

    def train(self, model: str, rows: Sequence[RankedRow], seed: int) -> str:
        """The folder of the model that training on rows leaves; without any pair it is the model itself."""
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
        merged = f"{folder}/merged"  # the next round and the evaluation read one model, not a base with adapters
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
        """Remove what an interrupted experiment would need: answers, scores, rows, reference and runs."""
        for place in (storage.path(self.folder), *storage.path(RUNS_FOLDER).glob(f"{RUN_NAME}-*")):
            storage.remove(place)


def keep_model(folder: str, run: ConditionRun, base: str) -> None:
    """Put the model of a run where later chapters load it, with the passes it took in `training.json`.

    A run without any pair leaves a reference to the base.
    """
    if run.model == base:
        policy.refer(folder, base)
    else:
        with storage.writing(folder) as temporary:
            shutil.copytree(storage.path(run.model), temporary)
            storage.write_json(temporary / "training.json", {"passes": run.sampled + run.rated + run.trained})
