"""Several answers of a policy to each query, and a reward model's scores of them; both are stored as they come.

Each query is a batch of its own, and answer j draws from the stream of (seed, query, j): order, other queries and
interruptions do not change an answer. A different n can change rounding: for fewer answers, take the first of eight.
A server gets a seed for each answer but may still answer differently the next time; its answers are stored.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from tqdm import tqdm

from mmrlhf_core.data import rows, storage
from mmrlhf_core.data.records import Query, Record, RecordError, column
from mmrlhf_core.models import policy, prompts, reward
from mmrlhf_core.models.policy import Policy
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.rollout import generate, score
from mmrlhf_core.rollout.score import CritiqueDecoding, Scored, Work
from mmrlhf_study.annotation import endpoint
from mmrlhf_study.annotation.endpoint import Answer, Endpoint, NoAnswer

MOST_ANSWERS = 8  # answers to one query, the paper's default and maximum
TOGETHER = 32  # queries that are sent to a server, or scored, between two writes


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn; temperature 0 is greedy, and the n answers are equal."""

    n: int = MOST_ANSWERS
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        generate.check_decoding(self.n, self.temperature, self.top_p, self.max_new_tokens)
        if self.n > MOST_ANSWERS:
            raise ValueError(f"n is {self.n}; give 1 to {MOST_ANSWERS} answers.")


@dataclass(frozen=True, slots=True)
class SampledAnswers(Record):
    """The answers of one policy to one query."""

    VERSION: ClassVar[int] = 1

    query: str = column("id of the query", filled=True)
    texts: tuple[str, ...] = column("the answers in the order drawn; blank where the policy said nothing")
    tokens: tuple[int, ...] = column("tokens written for each, its end token included")
    finished: tuple[bool, ...] = column("whether each came to its end within the allowed tokens")
    prompt: int = column("tokens of the prompt with its pictures; 0 when a server did not say", 0)
    seed: int = column("seed of the streams", 0)
    model: str = column("SHA-256 of the checkpoint's folder, or address and model of a server", "")


# ---------------------------------------------------------------- results on disk

Kept = TypeVar("Kept", bound=Record)


class Ledger(Generic[Kept]):
    """Records of one type in a JSON Lines file, each under a key that names all it depends on.

    `add` returns when the record is in the file. A process may die at any moment: every whole line counts, and what
    stood in an incomplete line is computed again.
    """

    def __init__(self, file: str | Path, kind: Callable[..., Kept]) -> None:
        self.file = storage.path(file)
        self.entries: dict[str, Kept] = {}
        for _, row in rows.read(self.file) if self.file.is_file() else ():
            if isinstance(row, dict) and row.keys() == {"key", "value"} and isinstance(row["key"], str):
                values = row["value"].items() if isinstance(row["value"], dict) else ()
                try:
                    self.entries[row["key"]] = kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values})
                except (TypeError, RecordError):  # fields of another version: computed again, too
                    continue

    def add(self, key: str, record: Kept) -> None:
        """Append one record; behind an incomplete line it gets a line of its own."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"key": key, "value": asdict(record)}, ensure_ascii=False, allow_nan=False) + "\n"
        with open(self.file, "ab+") as stream:
            stream.seek(max(stream.tell() - 1, 0))
            if stream.read() not in (b"", b"\n"):
                line = "\n" + line
            stream.write(line.encode())
        self.entries[key] = record


def _file(folder: str, settings: str) -> str:
    """The ledger's file for these settings."""
    return f"{folder}/{storage.sha256_bytes(settings.encode())[:16]}.jsonl"


# ---------------------------------------------------------------- answers


def place(source: str | Endpoint) -> str:
    """Identifies a source of answers: the content of a checkpoint, or a server's address and model."""
    if isinstance(source, Endpoint):
        return f"{source.url} {source.model}"
    return storage.sha256_tree(policy.locate(source))


def _content(query: Query, media: str | Path) -> str:
    """SHA-256 of the query's name and of everything that a policy is shown of the query."""
    files = [storage.sha256_file(storage.inside(storage.path(media), path)) for path in query.media]
    return storage.sha256_bytes("\0".join([query.id, query.prompt, query.modality, *files]).encode())


def answer(learner: Policy, prompt: Prompt, name: str, how: Sampling) -> tuple[list[list[int]], int]:
    """Tokens of n answers, each up to its end token or the limit, and the number of tokens of the prompt."""
    uniform = generate.uniform_rows(learner, how.seed, [name], how.n, how.max_new_tokens)
    written, (length,) = generate.decode(learner, [prompt], uniform, how.temperature, how.top_p)
    end = learner.processor.tokenizer.eos_token_id
    return [ids[: ids.index(end) + 1] if end in ids else ids for ids in written], length


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
    """Answers of a server. Those that came are stored also when another request failed."""
    server = replace(
        source, as_is=True, temperature=how.temperature, top_p=how.top_p, max_tokens=how.max_new_tokens
    )  # fmt: skip
    for start in range(0, len(queries), TOGETHER):
        chosen, turns, seeds = queries[start : start + TOGETHER], [], []
        for query in chosen:
            shown = prompts.spread(query.media, frames) if query.modality == "video" else query.media
            files = [storage.inside(storage.path(media), path) for path in shown]
            turns += [endpoint.user(query.prompt, files)] * how.n
            seeds += [int(generate.stream(how.seed, query.id, j, 1)[0] * 2**31) for j in range(how.n)]
        replies = endpoint.ask_all(server, turns, f"{folder}/engine", seeds)
        answers = [reply for reply in replies if isinstance(reply, Answer)]
        if failed := [reply for reply in replies if isinstance(reply, NoAnswer)]:
            raise NoAnswer(
                f"{len(failed)} of {len(replies)} answers did not come from {server.url}; the first: {failed[0]}. The "
                "others are stored: run again to request the missing ones, or leave these queries out."
            )
        for number, query in enumerate(chosen):
            own = answers[number * how.n : (number + 1) * how.n]
            texts, tokens = tuple(one.text for one in own), tuple(one.answer_tokens for one in own)
            finished = tuple(one.finished for one in own)
            yield SampledAnswers(query.id, texts, tokens, finished, own[0].prompt_tokens, how.seed, place(source))


def draw(
    source: str | Endpoint, queries: Sequence[Query], media: str | Path, frames: int, how: Sampling, folder: str,
    desc: str = "samples",
) -> list[SampledAnswers]:  # fmt: skip
    """n answers to each query, in their order, from a checkpoint (folder or hub id) or a server.

    Finished queries are stored below `folder`: an interrupted run continues behind the last of them, and a second run
    reads them without loading the model. Another checkpoint, setting, question or picture gives new answers. With a
    blank `desc` there is no progress bar.
    """
    keys = {query.id: _content(query, media) for query in queries}
    if len(keys) != len(queries):
        raise ValueError(f"{len(queries)} queries have only {len(keys)} different ids; give each its own.")
    ledger = Ledger(_file(folder, f"{place(source)} {asdict(how)} {frames}"), SampledAnswers)
    if missing := [query for query in queries if keys[query.id] not in ledger.entries]:
        if isinstance(source, Endpoint):
            answers = _remote(source, missing, media, frames, how, folder)
        else:
            answers = _own(source, missing, media, frames, how)
        for record in tqdm(answers, desc=desc, unit="query", total=len(missing), disable=not desc):
            ledger.add(keys[record.query], record)
    return [ledger.entries[keys[query.id]] for query in queries]


# ---------------------------------------------------------------- scores


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
    ledger = Ledger(_file(folder, f"{place(name)} {critique_tokens} {frames}"), Rated)
    keys = [
        storage.sha256_bytes("\0".join([_content(query, media), *one.texts]).encode())
        for query, one in zip(queries, answers, strict=True)
    ]
    missing = [number for number, key in enumerate(keys) if key not in ledger.entries]
    how = CritiqueDecoding(max_new_tokens=critique_tokens)
    model: reward.RewardModel | None = None
    for start in range(0, len(missing), TOGETHER):
        model = model or reward.load(name)
        chosen, work = missing[start : start + TOGETHER], []
        for number in chosen:
            texts = {str(j): text for j, text in enumerate(answers[number].texts)}
            work.append(Work(queries[number].id, prompts.of_query(queries[number], media, frames), texts))
        scored = score.score(model, work, how, desc=desc and f"{desc} {start + len(chosen)}/{len(missing)}")
        for number, one in zip(chosen, work, strict=True):
            ledger.add(keys[number], _rated(model, one, [entry for entry in scored if entry.query == one.query]))
    return [ledger.entries[key] for key in keys]
