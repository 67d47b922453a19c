"""Scores of a reward model: it reads picture and question once for all responses, writes critiques, and scores them.

A score depends on its question, response and critique, never on the rest of the batch or on the order; equal
responses get equal scores. Shapes: B queries, K responses, n critiques each, L tokens.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch.nn.functional import pad
from tqdm import tqdm

from mmrlhf_core.data import storage
from mmrlhf_core.data.annotated import Annotated
from mmrlhf_core.data.records import Pair, Record, column
from mmrlhf_core.models import prompts, reward
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.models.reward import RewardModel
from mmrlhf_core.ranked import attention
from mmrlhf_core.ranked import batch as ranked
from mmrlhf_core.ranked.logps import hidden_states
from mmrlhf_core.ranked.vision import TowerCache, answering, frozen
from mmrlhf_core.rollout import generate

CACHE = 2**30  # bytes of tower outputs kept between writing critiques and scoring them


@dataclass(frozen=True)
class CritiqueDecoding:
    """How critiques are written: one greedy critique, or `n` sampled ones whose scores are averaged."""

    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        generate.check_decoding(self.n, self.temperature, self.top_p, self.max_new_tokens)
        if self.n > 1 and self.temperature == 0:
            raise ValueError(f"{self.n} critiques at temperature 0 are all the same; raise the temperature, or n = 1.")


@dataclass(frozen=True)
class Work:
    """The responses to one query, by id, and their critiques by the same ids; if None, the model writes critiques."""

    query: str
    prompt: Prompt
    responses: Mapping[str, str]
    critiques: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if not self.responses:
            raise ValueError(f"Query {self.query!r} has no response to score; leave it out.")
        for name in self.responses if self.critiques is not None else ():
            if not (self.critiques or {}).get(name, "").strip():
                raise ValueError(
                    f"Response {name!r} has no critique; give all critiques, or none to have them written."
                )


@dataclass(frozen=True, slots=True)
class Scored(Record):
    """The score of one response, with the critiques it was scored after."""

    VERSION: ClassVar[int] = 1

    query: str = column("id of the query", filled=True)
    response: str = column("id of the response", filled=True)
    score: float = column("mean of the scores")
    scores: tuple[float, ...] = column("score after each critique")
    critiques: tuple[str, ...] = column("the critiques, up to where they were cut off; blank without critiques")
    finished: tuple[bool, ...] = column("whether each critique ended within the allowed tokens")
    given: bool = column("whether the critiques were given rather than written by the model")
    model: str = column("SHA-256 of the reward model's folder; blank for a model never saved", "")


@dataclass(frozen=True, slots=True)
class Margin(Record):
    """A reward model's scores of one pair."""

    VERSION: ClassVar[int] = 1

    query: str = column("id of the query", filled=True)
    chosen: str = column("id of the better response", filled=True)
    rejected: str = column("id of the worse response", filled=True)
    r_w: float = column("score of the better response")
    r_l: float = column("score of the worse response")
    model: str = column("SHA-256 of the reward model's folder; blank for a model never saved", "")

    @property
    def reward_margin(self) -> float:
        """δ = r_w − r_l (eq. 4)."""
        return self.r_w - self.r_l


def works(
    data: Iterable[Annotated], folder: str | Path, frames: int, critiques: Mapping[str, str] | None = None
) -> list[Work]:
    """All responses to each annotated query, with given `critiques`, by id of the response, if there are any."""
    work = []
    for one in data:
        given = None if critiques is None else {name: critiques[name] for name in one.responses}
        work.append(Work(one.query.id, prompts.of_query(one.query, folder, frames), one.responses, given))
    return work


Branch = tuple[str, str | None, bool]  # response, critique (None: the model writes none), whether it ended


def _fit(model: RewardModel, query: str, before: int, behind: int) -> None:
    """Refuse a response with its critique (`behind` tokens) that does not fit behind the question (`before` tokens)."""
    most = int(model.policy.model.config.get_text_config().max_position_embeddings)
    if before + behind > most:
        raise ValueError(
            f"Query {query!r}: {before} tokens of question and pictures and {behind} of a response and its critique "
            f"do not fit into the model's {most}; shorten the critique (max_new_tokens when it is written) or leave "
            "the query out."
        )


def _written(model: RewardModel, batch: Sequence[Work], how: CritiqueDecoding, cache: TowerCache) -> list[list[Branch]]:
    """n critiques of every different response of each query; question and pictures are read once."""
    processor, device = model.policy.processor, model.policy.model.device
    shown = [work.prompt for work in batch]
    heads = [prompts.critique_frame(processor, prompt, model.form.wording)[0] for prompt in shown]
    inputs = prompts.encode_rendered(processor, shown, heads)
    jobs = [(b, text) for b, work in enumerate(batch) for text in sorted(set(work.responses.values()))]
    ids = [torch.tensor(reward.opening(processor, model.form, shown[b], text)) for b, text in jobs]
    for (b, _), tokens in zip(jobs, ids, strict=True):
        _fit(model, batch[b].query, int(inputs["attention_mask"][b].sum()), len(tokens) + how.max_new_tokens + 1)
    longest, end = max(map(len, ids)), model.form.end
    padded = torch.stack([pad(row, (longest - len(row), 0), value=end) for row in ids]).to(device)
    real = torch.stack([pad(torch.ones_like(row), (longest - len(row), 0)) for row in ids]).to(device)
    with answering(model.policy.model, inputs, cache):
        rows = generate.prefill(model.policy, inputs, any(prompt.images or prompt.clip for prompt in shown))
    rows = rows.keep(torch.tensor([b for b, _ in jobs], device=device))
    rows = generate.extend(model.policy.model, rows, padded, real)
    rows = rows.keep(torch.arange(len(jobs), device=device).repeat_interleave(how.n))
    names = [f"{batch[b].query}/{storage.sha256_bytes(text.encode())}" for b, text in jobs]
    uniform = generate.uniform_rows(model.policy, how.seed, names, how.n, how.max_new_tokens)
    branches: list[list[Branch]] = [[] for _ in batch]
    for number, written in enumerate(generate.write(model.policy, rows, uniform, how.temperature, how.top_p)):
        b, text = jobs[number // how.n]
        branches[b].append((text, prompts.answer_text(processor, written), end in written))
    return branches


def _given(work: Work) -> list[Branch]:
    """The different (response, critique) of a query whose critiques are given, or whose model writes none."""
    critiques = work.critiques or {}
    branches = {(text, critiques.get(name), True) for name, text in work.responses.items()}
    return sorted(branches, key=lambda branch: (branch[0], branch[1] or ""))


def _scores(
    model: RewardModel, batch: Sequence[Work], branches: Sequence[Iterable[Branch]], cache: TowerCache
) -> list[dict[Branch, float]]:
    """The score of every different branch of each query, from one packed tree."""
    different, queries = [list(dict.fromkeys(rows)) for rows in branches], []
    for work, rows in zip(batch, different, strict=True):
        texts, critiques = [text for text, _, _ in rows], [critique for _, critique, _ in rows]
        query = reward.encode(model.policy.processor, model.form, work.prompt, texts, critiques)
        for tokens in query.responses:
            _fit(model, work.query, len(query.prefix), len(tokens))
        queries.append(query)
    tree = ranked.build_tree(queries).to(model.policy.model.device)
    places = reward.score_places(tree.targets, tree.response_of, tree.places, tree.n_responses, model.form)
    scores = model.head(hidden_states(model.policy.model, tree, cache)[places]).double().cpu()
    parted = scores.split([len(rows) for rows in different])
    return [dict(zip(rows, part.tolist(), strict=True)) for rows, part in zip(different, parted, strict=True)]


def _batch(model: RewardModel, batch: Sequence[Work], how: CritiqueDecoding, cache: TowerCache) -> list[list[Scored]]:
    """The records of a few queries. Critiques are given for all of these queries or for none."""
    written = batch[0].critiques is None and model.form.critique
    branches = _written(model, batch, how, cache) if written else [_given(work) for work in batch]
    scores = _scores(model, batch, branches, cache)
    return [_records(model.digest, *one) for one in zip(batch, branches, scores, strict=True)]


def _records(digest: str, work: Work, branches: Sequence[Branch], score_of: Mapping[Branch, float]) -> list[Scored]:
    """The records of one query, in the order of its responses."""
    records = []
    for name, text in work.responses.items():
        given = None if work.critiques is None else work.critiques[name]
        own = [branch for branch in branches if branch[0] == text and given in (None, branch[1])]
        scores = tuple(score_of[branch] for branch in own)
        critiques, ended = tuple(branch[1] or "" for branch in own), tuple(branch[2] for branch in own)
        mean, is_given = float(np.mean(scores)), work.critiques is not None
        records.append(Scored(work.query, name, mean, scores, critiques, ended, is_given, digest))
    return records


@torch.inference_mode()
def score(
    model: RewardModel, work: Sequence[Work], how: CritiqueDecoding = CritiqueDecoding(), batch: int = 16,
    desc: str = "scores",
) -> list[Scored]:  # fmt: skip
    """A record for each response of each query, in their order; `batch` counts queries."""
    names = [one.query for one in work]
    if len(set(names)) != len(names):
        raise ValueError(f"{len(names)} queries have only {len(set(names))} different ids; give each its own.")
    attention.prepare(model.policy.model)
    sizes = [(len(one.prompt.clip), len(one.prompt.images), len(one.prompt.text), one.query) for one in work]
    order, scored = sorted(range(len(work)), key=sizes.__getitem__), dict[int, list[Scored]]()
    cache = TowerCache(model.policy.model, CACHE)
    with tqdm(total=len(work), desc=desc, unit="query", disable=not desc) as bar, frozen(model.policy.model):
        for given in (True, False):
            part = [i for i in order if (work[i].critiques is not None) == given]
            for start in range(0, len(part), batch):
                chosen = part[start : start + batch]
                scored |= zip(chosen, _batch(model, [work[i] for i in chosen], how, cache), strict=True)
                bar.update(len(chosen))
    return [record for i in range(len(work)) for record in scored[i]]


def margins(scored: Iterable[Scored], pairs: Iterable[Pair]) -> list[Margin]:
    """r_w and r_l of each pair. All scores have to come from one model."""
    known = {(one.query, one.response): one for one in scored}
    if len({one.model for one in known.values()}) > 1:
        raise ValueError("These scores come from different reward models; margins compare scores of one model only.")
    compared = []
    for pair in pairs:
        for name in (pair.chosen, pair.rejected):
            if (pair.query, name) not in known:
                raise ValueError(f"Response {name!r} of query {pair.query!r} has no score; score it first.")
        better, worse = known[pair.query, pair.chosen], known[pair.query, pair.rejected]
        compared.append(Margin(pair.query, pair.chosen, pair.rejected, better.score, worse.score, better.model))
    return compared
