"""Critiques compared with the truth of MiniWorld: the faults that a critique names, invents and overlooks.

There are two forms of a critique: a short reason (`at b3 wrong . missing at c2 . answer wrong .`), and a list that
states the fact and a verdict for each claim (`at b3 nothing ? a red circle : wrong .`). A fault is a false claim, a
missing fact, or a wrong conclusion.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields

import numpy as np
import pandas as pd

from mmrlhf_core.data.annotated import Annotated
from mmrlhf_core.rollout.score import Scored
from mmrlhf_study.chapters.intervals import bootstrap
from mmrlhf_study.evaluation.reward_bench import RewardItem
from mmrlhf_study.miniworld import claims, questions, truth

ANSWER = "answer"
_NAMED = "|".join(sorted(claims.PLACE_NAMES, key=len, reverse=True))
_FAULT = re.compile(rf"(missing )?at ({_NAMED})\b")
_LOOKUP = re.compile(rf"at ({_NAMED}) ([^:.]*\?[^:.]*): (right|wrong)")  # (place, fact ? claim, verdict)
CRITIQUE_MEASURES = {  # name: (numerator, summed denominators) of `Tally`; the first two are recall and precision
    "faults named": ("named", ("named", "missed")),
    "named faults that are there": ("named", ("named", "invented")),
    "true claims called right": ("true_kept", ("true_kept", "true_lost")),
    "false claims called wrong": ("false_found", ("false_found", "false_lost")),
    "what is there, told rightly": ("seen", ("seen", "unseen")),
}


@dataclass(frozen=True)
class Tally:
    """Counts of one critique: faults, and claims by truth and by the critique's verdict."""

    named: int
    invented: int
    missed: int
    true_kept: int  # true claims called right
    true_lost: int  # true claims called wrong
    false_found: int  # false claims called wrong
    false_lost: int  # false claims called right
    seen: int  # claims for which the critique states correctly what is there
    unseen: int  # the other claims


def faults(critique: str) -> frozenset[str]:
    """The faults that a critique names: `at <place>`, `missing at <place>` or `answer`. Any text can be parsed."""
    named = set()
    for sentence in " ".join(critique.lower().split()).split("."):
        sentence = sentence.strip()
        if sentence.split(" ")[0] in (ANSWER, "decline") and "wrong" in sentence.split():
            named.add(ANSWER)
        elif (place := _FAULT.match(sentence)) and (place[1] or sentence.split()[-1] == "wrong"):
            named.add(f"{place[1] or ''}at {place[2]}")
    return frozenset(named)


def tally(critique: str, response: str, query: str) -> Tally:
    """Compare a critique of a response to a query of MiniWorld with the scene."""
    question = questions.question(query)
    named, true = faults(critique), faults(truth.critique(response, question))
    counts = {(right, called): 0 for right in (True, False) for called in ("right", "wrong")}
    seen = {True: 0, False: 0}
    for place, looked_up, called in _LOOKUP.findall(critique.lower()):
        there, thing = questions.compared(looked_up)
        for claim in claims.read(f"at {place} {thing}"):
            counts[claims.holds(claim, question.scene), called] += 1
            seen[claims.telling(there) == claims.telling(question.scene.at(place))] += 1
    return Tally(
        len(named & true), len(named - true), len(true - named),
        counts[True, "right"], counts[True, "wrong"], counts[False, "wrong"], counts[False, "right"],
        seen[True], seen[False],
    )  # fmt: skip


def in_world(data: Iterable[Annotated]) -> bool:
    """Whether all queries are of MiniWorld, so that their truth is known."""
    return all(row.query.source in ("miniworld", "adversarial") for row in data)


def true_critiques(data: Iterable[Annotated]) -> dict[str, str]:
    """The true critique of every response, by its id."""
    return {
        name: truth.critique(text, questions.question(row.query.id))
        for row in data
        for name, text in row.responses.items()
    }


def true_scores(bench: Iterable[RewardItem]) -> list[tuple[float, float]]:
    """The truth scores of both responses of every pair."""
    asked = [(questions.question(item.query), item) for item in bench]
    return [(float(truth.check(item.chosen, q).score), float(truth.check(item.rejected, q).score)) for q, item in asked]


Written = tuple[str, str, str]  # critique, response, query


def by_model(scored: Iterable[Scored], texts: Mapping[str, str]) -> list[Written]:
    """The critiques of a reward model (the first of each response); `texts` by id of the response."""
    return [(record.critiques[0], texts[record.response], record.query) for record in scored]


def by_annotators(data: Iterable[Annotated], kind: str) -> list[Written]:
    """The (simulated) annotators' reasons of one kind."""
    return [
        (text, row.responses[name], row.query.id) for row in data for name, text in row.reasons(kind).items() if text
    ]


def table(written: Mapping[str, Iterable[Written]], draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Every measure for each model and kind of annotator (`writer`); intervals are over queries.

    Measures of claims have no row for short reasons, which judge no claims.
    """
    names, rows = [item.name for item in fields(Tally)], []
    for writer, items in written.items():
        sums: dict[str, np.ndarray] = {}
        for critique, response, query in items:
            sums[query] = sums.get(query, 0) + np.array(astuple(tally(critique, response, query)), float)
        counts = np.array(list(sums.values()))
        for measure, (part, whole) in CRITIQUE_MEASURES.items():
            columns = counts[:, [names.index(part), *(names.index(name) for name in whole)]]
            if columns[:, 1:].sum():
                value, low, high = bootstrap(columns, _ratio, draws, seed)
                rows.append((writer, measure, float(value), float(low), float(high), int(columns[:, 1:].sum())))
    return pd.DataFrame(rows, columns=["writer", "measure", "value", "low", "high", "of"])


def _ratio(sums: np.ndarray) -> np.ndarray:
    """The first column over the sum of the others."""
    with np.errstate(invalid="ignore"):
        return sums[..., 0] / sums[..., 1:].sum(-1)
