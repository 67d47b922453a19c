"""A reward model's scores of sampled answers, stored as they come."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mmrlhf_core.data import storage
from mmrlhf_core.data.records import Query, Record, column
from mmrlhf_core.models import prompts, reward
from mmrlhf_core.rollout import sampling, score
from mmrlhf_core.rollout.sampling import SampledAnswers
from mmrlhf_core.rollout.score import CritiqueDecoding, Scored, Work

SCORED_TOGETHER = 32  # queries that are scored between two writes


@dataclass(frozen=True, slots=True)
class Rated(Record):
    """A reward model's scores of the answers to one query; equal answers share theirs."""

    VERSION: ClassVar[int] = 1

    query: str = column("id of the query", filled=True)
    scores: tuple[float, ...] = column("score of each answer")
    critiques: tuple[str, ...] = column("the critique behind each; blank for a model that writes none")
    tokens: tuple[int, ...] = column("tokens of each answer with what stands around it and its critique")
    model: str = column("SHA-256 of the reward model's folder", "")


def _rated(model: reward.RewardModel, work: Work, scored: Sequence[Scored]) -> Rated:
    """The scores of one query in the order of its answers, with the tokens that each took."""
    processor, critiques = model.policy.processor, tuple(one.critiques[0] for one in scored)
    openings = (reward.opening(processor, model.form, work.prompt, text) for text in work.responses.values())
    written = (prompts.answer_ids(processor, critique) for critique in critiques)
    tokens = tuple(len(before) + len(behind) for before, behind in zip(openings, written, strict=True))
    return Rated(work.query, tuple(one.score for one in scored), critiques, tokens, model.digest)


def rate(
    name: str, queries: Sequence[Query], answers: Sequence[SampledAnswers], media: str | Path, frames: int,
    critique_tokens: int, folder: str, desc: str = "scores",
) -> list[Rated]:  # fmt: skip
    """Scores of answers by the reward model in folder `name`, after one greedy critique each; stored like answers."""
    ledger = sampling.Ledger(sampling.ledger_file(folder, f"{sampling.place(name)} {critique_tokens} {frames}"), Rated)
    keys = [
        storage.sha256_bytes("\0".join([sampling.content(query, media), *one.texts]).encode())
        for query, one in zip(queries, answers, strict=True)
    ]
    missing = [number for number, key in enumerate(keys) if key not in ledger.entries]
    how = CritiqueDecoding(max_new_tokens=critique_tokens)
    model: reward.RewardModel | None = None
    for start in range(0, len(missing), SCORED_TOGETHER):
        model = model or reward.load(name)
        chosen, work = missing[start : start + SCORED_TOGETHER], []
        for number in chosen:
            texts = {str(j): text for j, text in enumerate(answers[number].texts)}
            work.append(Work(queries[number].id, prompts.of_query(queries[number], media, frames), texts))
        scored = score.score(model, work, how, desc=desc and f"{desc} {start + len(chosen)}/{len(missing)}")
        for number, one in zip(chosen, work, strict=True):
            ledger.add(keys[number], _rated(model, one, [entry for entry in scored if entry.query == one.query]))
    return [ledger.entries[key] for key in keys]
