"""Scores of a reward model: it reads picture and question once for all responses, writes critiques, and scores them.

A score depends on its question, response and critique, never on what else is in the batch or in which order; equal
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
    """How critiques are written: one, greedily; or the mean score of `n` sampled ones."""

    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 1 or self.max_new_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError(f"{self} is out of range: n, max_new_tokens from 1, temperature from 0, top_p in (0, 1].")
        if self.n > 1 and self.temperature == 0:
            raise ValueError(f"{self.n} critiques at temperature 0 are all the same; raise the temperature or ask 1.")


@dataclass(frozen=True)
class Work:
    """The responses to one query, by id, and the critiques to read instead of writing some, by the same ids."""

    query: str
    prompt: Prompt
    responses: Mapping[str, str]
    critiques: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if not self.responses:
            raise ValueError(f"Query {self.query!r} has no response to score; leave it out.")
        for name in self.responses if self.critiques is not None else ():
            if not self.critiques.get(name, "").strip():
                raise ValueError(f"Response {name!r} has no critique; give one, or none at all to have them written.")


@dataclass(frozen=True, slots=True)
class Scored(Record):
    """The score of one response, and what was read for it."""

    VERSION: ClassVar[int] = 1

    query: str = column("id of the query", filled=True)
    response: str = column("id of the response", filled=True)
    score: float = column("mean of the scores")
    scores: tuple[float, ...] = column("score after each critique")
    critiques: tuple[str, ...] = column("the critiques, up to where they were cut off; blank where none is written")
    finished: tuple[bool, ...] = column("whether each critique came to its end within the allowed tokens")
    given: bool = column("whether the critiques were given, not written by the model")
    model: str = column("SHA-256 of the reward model's folder; blank for a model never saved", "")


@dataclass(frozen=True, slots=True)
class Margin(Record):
    """What a reward model thinks of one pair."""

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
    """All responses to each annotated query; `critiques`, by id of the response, are read instead of written ones."""
    found = []
    for one in data:
        given = None if critiques is None else {name: critiques[name] for name in one.responses}
        found.append(Work(one.query.id, prompts.of_query(one.query, folder, frames), one.responses, given))
    return found


Branch = tuple[str, str | None, bool]  # response, critique (None: the model writes none), whether it came to its end


def _fit(model: RewardModel, query: str, before: int, behind: int) -> None:
    """Refuse a response with its critique, `behind` tokens, that does not fit behind `before` tokens of question."""
    most = reward.window(model.policy.model)
    if before + behind > most:
        raise ValueError(
            f"Query {query!r}: {before} tokens of question and pictures and {behind} of a response and its critique "
            f"do not fit into the model's {most}; shorten the critique (max_new_tokens when it is written) or leave "
            "the query out."
        )


def _written(model: RewardModel, batch: Sequence[Work], how: CritiqueDecoding, cache: TowerCache) -> list[list[Branch]]:
    """n critiques of every different response of each query; question and pictures are read once."""
    processor, device = model.policy.processor, model.policy.model.device
    asked = [one.prompt for one in batch]
    heads = [prompts.critique_frame(processor, prompt, model.form.wording)[0] for prompt in asked]
    inputs = prompts.encode_rendered(processor, asked, heads)
    jobs = [(b, text) for b, one in enumerate(batch) for text in sorted(set(one.responses.values()))]
    ids = [torch.tensor(reward.opening(processor, model.form, asked[b], text)) for b, text in jobs]
    for (b, _), row in zip(jobs, ids, strict=True):
        _fit(model, batch[b].query, int(inputs["attention_mask"][b].sum()), len(row) + how.max_new_tokens + 1)
    longest, end = max(len(row) for row in ids), model.form.end
    tokens = torch.stack([pad(row, (longest - len(row), 0), value=end) for row in ids]).to(device)
    real = torch.stack([pad(torch.ones_like(row), (longest - len(row), 0)) for row in ids]).to(device)
    with answering(model.policy.model, inputs, cache):
        rows = generate.prefill(model.policy, inputs, any(prompt.images or prompt.clip for prompt in asked))
    rows = rows.keep(torch.tensor([b for b, _ in jobs], device=device))
    rows = generate.extend(model.policy.model, rows, tokens, real)
    rows = rows.keep(torch.arange(len(jobs), device=device).repeat_interleave(how.n))
    names = [f"{batch[b].query}/{storage.sha256_bytes(text.encode())}" for b, text in jobs]
    draws = [generate.stream(how.seed, name, j, how.max_new_tokens) for name in names for j in range(how.n)]
    uniform = torch.from_numpy(np.stack(draws)).to(device)
    written = generate.write(model.policy, rows, uniform, how.temperature, how.top_p)
    found: list[list[Branch]] = [[] for _ in batch]
    for number, row in enumerate(written):
        b, text = jobs[number // how.n]
        found[b].append((text, prompts.answer_text(processor, row), end in row))
    return found


def _given(model: RewardModel, one: Work) -> list[Branch]:
    """The different (response, critique) of a query whose critiques are given, or of a model that writes none."""
    critiques = one.critiques or {}
    found = {(text, critiques.get(name), True) for name, text in one.responses.items()}
    return sorted(found, key=lambda branch: (branch[0], branch[1] or ""))


def _scores(
    model: RewardModel, batch: Sequence[Work], branches: Sequence[Sequence[Branch]], cache: TowerCache
) -> list[list[float]]:
    """The score of every branch of each query, from one packed tree."""
    queries = []
    for one, some in zip(batch, branches, strict=True):
        texts, critiques = [text for text, _, _ in some], [critique for _, critique, _ in some]
        parts = reward.encode(model.policy.processor, model.form, one.prompt, texts, critiques)
        for branch in parts.responses:
            _fit(model, one.query, len(parts.prefix), len(branch))
        queries.append(ranked.RankedQuery(*parts[:3], pairs=[]))
    tree = ranked.build_tree(queries).to(model.policy.model.device)
    places = reward.score_places(tree.targets, tree.response_of, tree.places, tree.n_responses, model.form)
    found = model.head(hidden_states(model.policy.model, tree, cache)[places]).double().cpu()
    return [part.tolist() for part in found.split([len(some) for some in branches])]


def _batch(model: RewardModel, batch: Sequence[Work], how: CritiqueDecoding, cache: TowerCache) -> list[list[Scored]]:
    """Records of a few queries that either all bring critiques or all need some."""
    if batch[0].critiques is None and model.form.critique:
        branches = _written(model, batch, how, cache)
    else:
        branches = [_given(model, one) for one in batch]
    different = [list(dict.fromkeys(some)) for some in branches]
    scores = _scores(model, batch, different, cache)
    values = [dict(zip(d, s, strict=True)) for d, s in zip(different, scores, strict=True)]
    found = []
    for one, some, value in zip(batch, branches, values, strict=True):
        found.append([])
        for name, text in one.responses.items():
            wanted = None if one.critiques is None else one.critiques[name]
            own = [b for b in some if b[0] == text and (wanted is None or b[1] == wanted)]
            scores = tuple(value[branch] for branch in own)
            words, ended = tuple(branch[1] or "" for branch in own), tuple(branch[2] for branch in own)
            kept = (float(np.mean(scores)), scores, words, ended)
            found[-1].append(Scored(one.query, name, *kept, one.critiques is not None, model.digest))
    return found


@torch.inference_mode()
def score(
    model: RewardModel, work: Sequence[Work], how: CritiqueDecoding = CritiqueDecoding(), batch: int = 16,
    desc: str = "scores",
) -> list[Scored]:  # fmt: skip
    """A record for each response of each query, in the order given; `batch` counts queries."""
    names = [one.query for one in work]
    if len(set(names)) != len(names):
        raise ValueError(f"{len(names)} queries have only {len(set(names))} different ids; give each its own.")
    attention.prepare(model.policy.model)

    def kind(i: int) -> tuple:
        prompt = work[i].prompt
        return len(prompt.clip), len(prompt.images), len(prompt.text), names[i]

    order, found = sorted(range(len(work)), key=kind), {}
    cache = TowerCache(model.policy.model, CACHE)
    with tqdm(total=len(work), desc=desc, unit="query", disable=not desc) as bar, frozen(model.policy.model):
        for bring in (True, False):
            part = [i for i in order if (work[i].critiques is not None) == bring]
            for start in range(0, len(part), batch):
                chosen = part[start : start + batch]
                found |= zip(chosen, _batch(model, [work[i] for i in chosen], how, cache), strict=True)
                bar.update(len(chosen))
    return [one for i in range(len(work)) for one in found[i]]


def margins(scored: Iterable[Scored], pairs: Iterable[Pair]) -> list[Margin]:
    """r_w and r_l of each pair. All scores have to come from one model."""
    known = {(one.query, one.response): one for one in scored}
    if len({one.model for one in known.values()}) > 1:
        raise ValueError("These scores come from different reward models; margins compare scores of one only.")
    found = []
    for pair in pairs:
        for name in (pair.chosen, pair.rejected):
            if (pair.query, name) not in known:
                raise ValueError(f"Response {name!r} of query {pair.query!r} has no score; score it first.")
        better, worse = known[pair.query, pair.chosen], known[pair.query, pair.rejected]
        found.append(Margin(pair.query, pair.chosen, pair.rejected, better.score, worse.score, better.model))
    return found
