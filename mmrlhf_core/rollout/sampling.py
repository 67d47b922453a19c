"""Several answers of a policy to each query, and a reward model's scores of them; both kept as they come.

Each query is a batch of its own: its prompt is read once, the cache repeated n times, and answer j draws from the
stream of (seed, query, j). Every tensor then has shapes that only the query decides, so on one machine, with the same
libraries and threads, batch size, order, the other queries and interruptions change no bit of an answer. Another n
may change the last bits of the numbers behind it: take the first answers of eight instead of asking for fewer. An
engine behind an endpoint gets a seed for every answer; what came back is kept, but asking it anew may give other words.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from tqdm import tqdm

from mmrlhf_core.data import storage
from mmrlhf_core.data.records import Query, Record, column
from mmrlhf_core.models import policy, prompts, reward
from mmrlhf_core.models.policy import Policy
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.rollout import endpoint, generate, score
from mmrlhf_core.rollout.endpoint import Endpoint, NoAnswer
from mmrlhf_core.rollout.ledger import Ledger
from mmrlhf_core.rollout.score import CritiqueDecoding, Work

MOST_ANSWERS = 8  # answers to one query, the paper's default and maximum
TOGETHER = 32  # queries that are asked of an engine, or scored, between two writes


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn; temperature 0 is greedy, with n the same answers."""

    n: int = MOST_ANSWERS
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if (
            not 1 <= self.n <= MOST_ANSWERS
            or self.max_new_tokens < 1
            or self.temperature < 0
            or not 0 < self.top_p <= 1
        ):
            raise ValueError(
                f"{self} is out of range: n from 1 to {MOST_ANSWERS}, temperature from 0, top_p in (0, 1], "
                "max_new_tokens from 1."
            )


@dataclass(frozen=True, slots=True)
class SampledAnswers(Record):
    """The answers of one policy to one query."""

    VERSION: ClassVar[int] = 1

    query: str = column("id of the query", filled=True)
    texts: tuple[str, ...] = column("the answers in the order drawn; blank where the policy said nothing")
    tokens: tuple[int, ...] = column("tokens written for each, its end token included")
    finished: tuple[bool, ...] = column("whether each came to its end within the allowed tokens")
    prompt: int = column("tokens of the prompt with its pictures; 0 when an engine did not say", 0)
    seed: int = column("seed of the streams", 0)
    model: str = column("SHA-256 of the checkpoint's folder, or address and name of an engine", "")


@dataclass(frozen=True, slots=True)
class Rated(Record):
    """A reward model's scores of the answers to one query; equal answers share theirs."""

    VERSION: ClassVar[int] = 1

    query: str = column("id of the query", filled=True)
    scores: tuple[float, ...] = column("score of each answer")
    critiques: tuple[str, ...] = column("the critique behind each; blank for a model that writes none")
    tokens: tuple[int, ...] = column("tokens of each answer with what stands around it and its critique")
    model: str = column("SHA-256 of the reward model's folder", "")


# ---------------------------------------------------------------- answers


def place(source: str | Endpoint) -> str:
    """What identifies a source of answers: the content of a checkpoint, or an engine's address and model."""
    if isinstance(source, Endpoint):
        return f"{source.url} {source.model}"
    return storage.sha256_tree(policy.locate(source))


def _content(query: Query, media: str | Path) -> str:
    """SHA-256 of all that a policy is shown of a query, and of its name."""
    files = [storage.sha256_file(storage.inside(storage.path(media), path)) for path in query.media]
    return storage.sha256_bytes("\0".join([query.id, query.prompt, query.modality, *files]).encode())


@torch.inference_mode()
def answer(learner: Policy, prompt: Prompt, name: str, how: Sampling) -> tuple[list[list[int]], int]:
    """Tokens of n answers, each up to its end token or the limit, and the number of tokens of the prompt."""
    inputs = prompts.encode(learner.processor, [prompt])
    streams = [generate.stream(how.seed, name, number, how.max_new_tokens) for number in range(how.n)]
    uniform = torch.from_numpy(np.stack(streams)).to(learner.model.device)
    rows = generate.prefill(learner, inputs, bool(prompt.images or prompt.clip))
    rows = rows.keep(torch.zeros(how.n, dtype=torch.long, device=uniform.device))
    written = generate.write(learner, rows, uniform, how.temperature, how.top_p)
    end = learner.processor.tokenizer.eos_token_id
    cut = [ids[: ids.index(end) + 1] if end in ids else ids for ids in written]
    return cut, inputs["input_ids"].shape[1]


def _own(
    source: str, queries: Sequence[Query], media: str | Path, frames: int, how: Sampling
) -> Iterator[SampledAnswers]:
    """Answers of a checkpoint, one query after the other."""
    learner, model = policy.load(source), place(source)
    end = learner.processor.tokenizer.eos_token_id
    for query in queries:
        ids, prompt = answer(learner, prompts.of_query(query, media, frames), query.id, how)
        texts = tuple(prompts.answer_text(learner.processor, row) for row in ids)
        finished = tuple(row[-1] == end for row in ids)
        yield SampledAnswers(query.id, texts, tuple(len(row) for row in ids), finished, prompt, how.seed, model)


def _remote(
    source: Endpoint, queries: Sequence[Query], media: str | Path, frames: int, how: Sampling, folder: str
) -> Iterator[SampledAnswers]:
    """Answers of an engine; those that came are kept, also when another one failed."""
    limits = {"temperature": how.temperature, "top_p": how.top_p, "max_tokens": how.max_new_tokens}
    engine = replace(source, as_is=True, **limits)
    for start in range(0, len(queries), TOGETHER):
        chosen, asked, seeds = queries[start : start + TOGETHER], [], []
        for query in chosen:
            shown = prompts.spread(query.media, frames) if query.modality == "video" else query.media
            files = [storage.inside(storage.path(media), path) for path in shown]
            asked += [endpoint.user(query.prompt, files)] * how.n
            seeds += [int(generate.stream(how.seed, query.id, j, 1)[0] * 2**31) for j in range(how.n)]
        found = endpoint.ask_all(engine, asked, f"{folder}/engine", seeds)
        if failed := [one for one in found if isinstance(one, NoAnswer)]:
            raise NoAnswer(
                f"{len(failed)} of {len(found)} answers did not come from {engine.url}; the first: {failed[0]}. What "
                "came is kept: run again to ask for the rest, or leave these queries out."
            )
        for number, query in enumerate(chosen):
            mine = found[number * how.n : (number + 1) * how.n]
            columns = [tuple(getattr(one, name) for one in mine) for name in ("text", "answer_tokens", "finished")]
            yield SampledAnswers(query.id, *columns, mine[0].prompt_tokens, how.seed, place(source))


def draw(
    source: str | Endpoint, queries: Sequence[Query], media: str | Path, frames: int, how: Sampling, folder: str,
    desc: str = "samples",
) -> list[SampledAnswers]:  # fmt: skip
    """n answers to each query, in their order, from a checkpoint (folder or hub id) or an engine.

    Finished queries lie below `folder`; a run that was killed goes on behind the last of them, and a second run reads
    them without loading the model. A changed checkpoint, setting, question or picture is asked anew. A blank `desc`
    shows no bar.
    """
    keys = {query.id: _content(query, media) for query in queries}
    if len(keys) != len(queries):
        raise ValueError(f"{len(queries)} queries have only {len(keys)} different ids; give each its own.")
    ledger = _ledger(folder, f"{place(source)} {asdict(how)} {frames}")
    missing = [query for query in queries if keys[query.id] not in ledger.entries]
    if missing:
        asked = (source, missing, media, frames, how)
        found = _remote(*asked, folder) if isinstance(source, Endpoint) else _own(*asked)
        for one in tqdm(found, desc=desc, unit="query", total=len(missing), disable=not desc):
            ledger.add(keys[one.query], asdict(one))
    return [_record(SampledAnswers, ledger.entries[keys[query.id]]) for query in queries]


def _ledger(folder: str, settings: str) -> Ledger:
    """The ledger of these settings below a folder."""
    return Ledger(f"{folder}/{storage.sha256_bytes(settings.encode())[:16]}.jsonl")


def _record(kind: type, entry: dict) -> SampledAnswers | Rated:
    """A record from its line."""
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()})


# ---------------------------------------------------------------- scores


def _read(model: reward.RewardModel, work: Work, scored: Sequence[score.Scored]) -> Rated:
    """The scores of one query in the order of its answers, with the tokens that each took."""
    processor, found = model.policy.processor, {one.response: one for one in scored}
    tokens = []
    for name, text in work.responses.items():
        critique = prompts.literal(processor, found[name].critiques[0])
        tokens.append(len(reward.opening(processor, model.form, work.prompt, text)) + len(critique) + 1)
    ordered = [found[name] for name in work.responses]
    critiques = tuple(one.critiques[0] for one in ordered)
    return Rated(work.query, tuple(one.score for one in ordered), critiques, tuple(tokens), model.digest)


def rate(
    name: str, queries: Sequence[Query], answers: Sequence[SampledAnswers], media: str | Path, frames: int,
    critique_tokens: int, folder: str, desc: str = "scores",
) -> list[Rated]:  # fmt: skip
    """The scores that the reward model in folder `name` gives to answers, one greedy critique each; kept like them."""
    ledger = _ledger(folder, f"{place(name)} {critique_tokens} {frames}")
    keys = [
        storage.sha256_bytes("\0".join([_content(query, media), *one.texts]).encode())
        for query, one in zip(queries, answers, strict=True)
    ]
    missing = [number for number, key in enumerate(keys) if key not in ledger.entries]
    model = reward.load(name) if missing else None
    how = CritiqueDecoding(max_new_tokens=critique_tokens)
    for start in range(0, len(missing), TOGETHER):
        chosen, work = missing[start : start + TOGETHER], []
        for number in chosen:
            texts = {str(j): text for j, text in enumerate(answers[number].texts)}
            work.append(Work(queries[number].id, prompts.of_query(queries[number], media, frames), texts))
        scored = score.score(model, work, how, desc=desc and f"{desc} {start + len(chosen)}/{len(missing)}")
        for number, one in zip(chosen, work, strict=True):
            mine = [entry for entry in scored if entry.query == one.query]
            ledger.add(keys[number], asdict(_read(model, one, mine)))
    return [_record(Rated, ledger.entries[key]) for key in keys]
