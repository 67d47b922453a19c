"""What the evaluation chapter says: sentences, headline numbers and metrics, made from whatever the tables hold."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mmrlhf_study.chapters.reporting import Headline
from mmrlhf_study.evaluation import comparison, paper, paper_claims
from mmrlhf_study.evaluation.metrics import Pope
from mmrlhf_study.evaluation.paper import TEN_DIMENSIONS

WORLD = "MiniWorld"


def _gain(row: Any) -> str:
    return f"{row.gain:+.1f} points [{row.gain_low:+.1f}, {row.gain_high:+.1f}]"


def _of_policy(name: str, found: pd.DataFrame, dims: pd.DataFrame) -> list[str]:
    """What one policy gained and lost."""
    mine, overall = found[found.policy == name], dims[dims.policy == name].set_index("dimension").loc["all"]
    benches = mine[mine.dimension != "control"]
    counts = {verdict: int((benches.verdict == verdict).sum()) for verdict in ("better", "worse", "not shown")}
    said = [
        f"{name}: of {len(benches)} benches (and {len(mine) - len(benches)} controls) {counts['worse']} are shown to "
        f"be worse, {counts['better']} better, and for {counts['not shown']} no difference could be shown; over the "
        f"{overall.benches} benches scored on their own {_gain(overall)}."
    ]
    for word, row in (("loses", mine.loc[mine.gain.idxmin()]), ("gains", mine.loc[mine.gain.idxmax()])):
        if (row.gain < 0) == (word == "loses") and row.gain:
            verdict = "shown" if row.verdict != "not shown" else "not shown beyond chance"
            said.append(f"{name} {word} most on {row.bench!r}: {_gain(row)}, {verdict}.")
    return said


def sentences(found: pd.DataFrame, dims: pd.DataFrame, averages: pd.DataFrame, spent: pd.DataFrame) -> list[str]:
    """One sentence per finding, each with its numbers."""
    reference, *others = averages.index
    said = [sentence for name in others for sentence in _of_policy(name, found, dims)]
    if not others:
        said.append(f"Only {reference} was there to evaluate, so nothing can be compared.")
    controls = found[found.dimension == "control"].set_index(["bench", "policy"]).value
    tokens = spent.set_index("policy").tokens
    for name, row in averages.iterrows():
        vain = controls["harmless, refused", name]
        said.append(
            f"{name}: unsafety {row.unsafety:.1f} %, safety {row.safety:.1f} % (means of the safety bench's rows), "
            f"{vain:.1f} % of harmless requests refused, {tokens[name]:.1f} tokens per answer."
        )
    return said


def headlines(found: pd.DataFrame, dims: pd.DataFrame) -> list[Headline]:
    """The front page's numbers: the first policy's mean; of every other the gains over all benches and on safety, and
    the price, refusals of harmless questions; in conversation only for MM-DPO, beside which the paper's numbers stand.
    """
    reference = found.policy.iloc[0]
    overall = dims.set_index(["dimension", "policy"])
    value = overall.loc["all", reference]
    rows = [Headline(f"{reference}: mean of all benches, 0 to 100", value.value, value.low, value.high, WORLD)]
    quoted, harmless = _quoted(), found[found.bench == "harmless, refused"].set_index("policy")
    for name in list(dict.fromkeys(found.policy))[1:]:
        quotes = quoted if name.startswith("policies/mm_dpo") else {"all": "", "safety": ""}
        for dimension, quote in quotes.items():
            row = overall.loc[dimension, name]
            label = f"{name}: gain, {TEN_DIMENSIONS.get(dimension, 'all benches')}, points"
            rows.append(Headline(label, row.gain, row.gain_low, row.gain_high, WORLD, quote))
        row = harmless.loc[name]
        rows.append(Headline(f"{name}: harmless questions refused, %", row.value, row.low, row.high, WORLD))
    return rows


def _quoted() -> dict[str, str]:
    """What the paper says of MM-DPO, by dimension."""
    return {
        "all": _rows_better(),
        "safety": "unsafety LLaVA-OV-7B 40.2 → 13.9 (Tab. 3)",
        "conversation": f"LLaVA-OV-7B +19.5 % (abstract; from Tab. 2 it {paper_claims.claims()[0].verdict})",
    }


def _rows_better() -> str:
    """How many of the paper's rows improved, per model."""
    better = paper.table().query("verdict == 'better'").groupby("model").size()
    counts = ", ".join(f"{better[model]}" for model in paper.MODELS)
    return f"rows better of {len(paper.TABLES)}: {counts} ({', '.join(paper.MODELS)}; Tab. 2 and 3)"


def metrics(
    found: pd.DataFrame, dims: pd.DataFrame, averages: pd.DataFrame, pope: Mapping[str, Mapping[str, Pope]], items: int
) -> dict[str, Any]:
    """Everything as nested plain numbers, without clock times."""
    return {
        "items": items,
        "benches": _nested(found, "bench", ["value", "low", "high", "gain", "gain_low", "gain_high", "n"]),
        "dimensions": _nested(dims, "dimension", ["value", "low", "high", "gain", "gain_low", "gain_high"]),
        "averages": {name: {key: float(value) for key, value in row.items()} for name, row in averages.iterrows()},
        "verdicts": {name: {k: int(v) for k, v in row.items()} for name, row in comparison.verdicts(found).iterrows()},
        "pope": {name: {key: _plain(one) for key, one in settings.items()} for name, settings in pope.items()},
        "paper_claims": {claim.claim: claim.verdict for claim in paper_claims.claims()},
    }


def _nested(rows: pd.DataFrame, by: str, names: Sequence[str]) -> dict[str, dict]:
    """`by` → policy → the named numbers."""
    nested: dict[str, dict] = {}
    for row in rows.itertuples():
        numbers = {name: float(getattr(row, name)) for name in names}
        nested.setdefault(getattr(row, by), {})[row.policy] = numbers
    return nested


def _plain(found: Pope) -> dict[str, float]:
    return {name: float(np.round(value, 6)) for name, value in found._asdict().items()}
