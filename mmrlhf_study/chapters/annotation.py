"""What the annotation chapter reports: metrics, headline numbers, and sentences that say only what the numbers show."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mmrlhf_core.data.records import SCALES, Pair
from mmrlhf_study.annotation import agreement
from mmrlhf_study.annotation.campaign import Campaign
from mmrlhf_study.annotation.report import INTERVAL_COLUMNS, TOLD
from mmrlhf_study.chapters.intervals import Estimate, bootstrap
from mmrlhf_study.chapters.reporting import Headline

OVER = "over 120,000 of 167,277 pairs (72 %), §2.3 and Tab. 1"


def kept_share(made: Campaign, pairs: Sequence[Pair], draws: int, seed: int) -> Estimate:
    """Share of the pairs there could be that are there, over queries."""
    number = Counter(pair.query for pair in pairs)
    texts = {one.id: one.text for one in made.responses}
    different = {one.query: len({texts[name] for name in one.responses}) for one in made.panel}
    sizes = [(number[query], k * (k - 1) // 2) for query, k in different.items()]
    n = len(sizes)
    counts = agreement.cells(np.repeat(np.arange(n), 2), np.tile([0, 1], n), np.array(sizes, float).ravel(), 2)
    found = bootstrap(counts, agreement.share, draws, seed)
    return Estimate(*(end[0] for end in found))


def right_share(pairs: Sequence[Pair], scores: Mapping[str, float]) -> float | None:
    """Share of the ranked pairs with different true scores that have the truly better one first; None without truth."""
    gaps = [scores[pair.chosen] - scores[pair.rejected] for pair in pairs if scores and pair.origin == "ranked"]
    told = [gap > 0 for gap in gaps if gap]
    return sum(told) / len(told) if told else None


def _row(rows: pd.DataFrame, **where: str) -> dict[str, float] | None:
    """Value, low and high of the one row that fits, or None."""
    fits = np.logical_and.reduce([rows[name] == value for name, value in where.items()])
    return {end: float(rows.loc[fits, end].iloc[0]) for end in INTERVAL_COLUMNS} if fits.any() else None


def headlines(
    agreed: pd.DataFrame, inverted: pd.DataFrame, compared: pd.DataFrame, kept: Estimate, world: str
) -> list[Headline]:
    """The chapter's front-page numbers, measured on `world`; those that could not be measured are left out."""
    asked = [
        (f"Krippendorff's alpha, {scale}", _row(agreed, **{"class": "all"}, scale=scale, measure="alpha"), "")
        for scale in SCALES
    ]
    asked += [("Share of possible pairs kept", dict(zip(INTERVAL_COLUMNS, map(float, kept), strict=True)), OVER)]
    name = "Pairs the model judge turns around"
    asked += [(name, _row(inverted, **{"class": "all"}, outcome="inverted"), "")]
    for kind in dict.fromkeys(compared["kind"]):
        for judge in ("people", "model judge"):
            asked.append((f"App. D, {kind}: {judge} right", _row(compared, kind=kind, judge=judge), ""))
    return [Headline(label, row["value"], row["low"], row["high"], world, paper) for label, row, paper in asked if row]


def metrics(made: Campaign, pairs: Sequence[Pair], right: float | None) -> dict[str, Any]:
    """Counts of a campaign as plain numbers; `right` is the share of pairs the truth orders alike, where known."""
    return {
        "queries": len(made.queries),
        "responses": len(made.responses),
        "judgements": len(made.judgements),
        "checked_sheets": made.checked,
        "returned_sheets": made.returned,
        "repairs": dict(sorted(Counter(one.repair for one in made.panel if one.repair).items())),
        "pairs": len(pairs),
        "pairs_by_origin": dict(sorted(Counter(pair.origin for pair in pairs).items())),
        "pairs_by_split": dict(sorted(Counter(pair.split for pair in pairs).items())),
        **({} if right is None else {"pairs_ordered_as_truth": right}),
    }


def _shown(row: dict[str, float]) -> str:
    return f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def sentences(
    agreed: pd.DataFrame,
    strengths: pd.DataFrame,
    enough: pd.DataFrame,
    inverted: pd.DataFrame,
    compared: pd.DataFrame,
    longer: pd.DataFrame,
    biases: pd.DataFrame,
) -> list[str]:
    """One sentence per finding, each with its numbers."""
    said = []
    for scale in SCALES if len(agreed) else ():
        row = _row(agreed, **{"class": "all"}, scale=scale, measure="alpha")
        said.append(f"Agreement on {scale}, over all queries: alpha {_shown(row)}.")
    safe = _row(agreed, **{"class": "safety"}, scale="ethics", measure="alpha")
    if safe:
        said.append(f"On the safety queries alone, ethics has alpha {_shown(safe)}.")
    first, last = (_shown(strengths.iloc[at]) for at in (0, -1))
    if len(strengths) > 1:
        best, worst = strengths.index[0], strengths.index[-1]
        said.append(f"The strongest responder is {best} at {first}, the weakest {worst} at {last}.")
    if len(enough):
        some = enough.set_index("annotators")["value"]
        counts = [n for n in (1, 3, 6, some.index.max()) if n in some.index]
        shown = ", ".join(f"{n}: {some[n]:.3f}" for n in dict.fromkeys(counts))
        said.append(f"Pairs ordered as the truth orders them, by number of judgements: {shown}.")
    every = longer.loc["all"]
    side = (
        "more often than not"
        if every["low"] > 0.5
        else "less often than not"
        if every["high"] < 0.5
        else "about as often as not"
    )
    said.append(f"The longer response is the better one {side}: {_shown(every)} of the pairs of different length.")
    for name, row in biases.iterrows():
        zero = "" if row["low"] > 0 or row["high"] < 0 else ", which may be none"
        said.append(f"Change of the overall score with {name}: {_shown(row)}{zero}.")
    if row := _row(inverted, **{"class": "all"}, outcome="inverted"):
        tied, told = (_row(inverted, **{"class": "all"}, outcome=outcome) for outcome in ("tied", TOLD))
        said.append(
            f"The model judge turns {_shown(row)} of the panel's pairs around and does not tell {_shown(tied)} apart; "
            f"of those it tells apart it turns {_shown(told)} around, where tossing a coin turns half."
        )
    for kind in dict.fromkeys(compared["kind"]):
        people, model = (_row(compared, kind=kind, judge=judge) for judge in ("people", "model judge"))
        better = "people" if people["low"] > model["high"] else "the model" if model["low"] > people["high"] else ""
        verdict = f"{better} ahead" if better else "intervals overlap"
        shares = f"people decide {_shown(people)} rightly, the model judge {_shown(model)}"
        said.append(f"Cases that are {kind}: {shares} ({verdict}).")
    return said
