"""Chapter 04: headline numbers and sentences of the comparison of arms, and the paper's Fig. 5.

Every sentence is computed from the run's numbers.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.figure import Figure

from mmrlhf_core.objectives import preference
from mmrlhf_study.chapters import figures
from mmrlhf_study.chapters.experiment import label
from mmrlhf_study.chapters.reporting import Headline, shown
from mmrlhf_study.evaluation import compare
from mmrlhf_study.evaluation.held_out import AVERAGE
from mmrlhf_study.evaluation.paper import FIGURE_12A

GAIN_CONTROLS = ("sft", "shuffled", "constant_beta")  # arms that may explain a gain over DPO
QUOTE = "{} on average of four benchmarks, one run (Fig. 12a)"
RELATION = {
    compare.BETTER: "is better than",
    compare.WORSE: "is worse than",
    compare.OPEN: "cannot be distinguished from",
}


def scaling_figure(ks: Sequence[float], to: float = 10) -> Figure:
    """Fig. 5: 1 − e^(−kδ) over δ, computed by the library's β(δ) at β_ori = w = 1."""
    figure, axis = plt.subplots(figsize=(5.5, 3.2))
    delta = torch.linspace(0, to, 201, dtype=torch.double)
    for k, colour in figures.colours(ks).items():
        axis.plot(delta, preference.dynamic_beta(delta, 1.0, 1.0, k) - 1, color=colour, label=f"k = {k:g}")
    figures.finish(axis, "1 − e^(−kδ), from the library", grid="both", xlabel="reward margin δ")
    figures.legend(axis)
    return figure


def averages(means: pd.DataFrame) -> pd.DataFrame:
    """The rows of the average, by arm."""
    return means[means.family == AVERAGE].set_index("arm")


def headlines(means: pd.DataFrame, compared: pd.DataFrame, world: str) -> list[Headline]:
    """Front-page numbers: the mean score of each arm in `means`, and MM-DPO minus that arm."""
    rows = []
    for arm, row in averages(means).iterrows():
        paper = QUOTE.format(FIGURE_12A[arm]) if arm in FIGURE_12A else ""
        rows.append(Headline(f"mean score: {label(arm)}", row.value, row.low, row.high, world, paper))
    for row in compared[compared.against.isin(set(means.arm))].itertuples():
        known = row.against in FIGURE_12A
        paper = QUOTE.format(f"{FIGURE_12A['mm_dpo'] - FIGURE_12A[row.against]:+.1f}") if known else ""
        rows.append(Headline(f"MM-DPO less {label(row.against)}", row.difference, row.low, row.high, world, paper))
    return rows


def against(compared: pd.DataFrame, arm: str = "mm_dpo") -> list[str]:
    """A sentence for every comparison of an arm; the verdict uses the corrected p, which it therefore shows."""
    lines = []
    for row, p in zip(compared.itertuples(), compared["p (Holm)"], strict=True):
        gap = shown(row.difference, row.low, row.high, sign="+")
        chance = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
        lines.append(f"{label(arm)} {RELATION[row.verdict]} {label(row.against)}: {gap}, {chance} after Holm.")
    return lines


def _ranking(value: Mapping[str, float], arms: Sequence[str]) -> str:
    """Arms from the highest value to the lowest, with `=` between equal values."""
    ranked = sorted(arms, key=lambda arm: -value[arm])
    signs = [" = " if value[a] == value[b] else " > " for a, b in pairwise(ranked)]
    return "".join(label(arm) + sign for arm, sign in zip(ranked, [*signs, ""], strict=True))


def order(means: pd.DataFrame) -> str:
    """The arms of the paper's Fig. 12a by their mean score here, and by the paper's."""
    value = averages(means).value
    both = [arm for arm in FIGURE_12A if arm in value.index]
    here, paper = _ranking(value, both), _ranking(FIGURE_12A, both)
    return f"Order of the means here (differences may be noise): {here}. In the paper: {paper}."


def explanations(compared: pd.DataFrame) -> str:
    """Whether MM-DPO is better than DPO, and which controls may explain the gain."""
    verdict = dict(zip(compared.against, compared.verdict, strict=True))
    if "dpo" not in verdict:
        return "MM-DPO was not compared with DPO."
    if verdict["dpo"] != compare.BETTER:
        return f"MM-DPO {RELATION[verdict['dpo']]} DPO: no gain is shown."
    tried = [arm for arm in GAIN_CONTROLS if arm in verdict]
    left = [label(arm) for arm in tried if verdict[arm] != compare.BETTER]
    if not tried:
        return "MM-DPO is better than DPO; no control was compared."
    if not left:
        return "MM-DPO is better than DPO and than every control that was tried."
    return f"MM-DPO is better than DPO, but not shown to be better than {', '.join(left)}, which may explain the gain."


def hacking(changes: pd.DataFrame) -> list[str]:
    """Arms whose reward or score differs from the base policy's, by their uncorrected intervals."""
    side = {(row.arm, row.measure): compare.side(row.low, row.high) for row in changes.itertuples()}
    both = {arm: (side[arm, "reward"], side[arm, "score"]) for arm in dict.fromkeys(changes.arm)}
    up, down = compare.BETTER, compare.WORSE
    kinds = {
        "Reward up, score up": {(up, up)},
        "Reward up, score down": {(up, down)},
        "Score up, reward not up": {(compare.OPEN, up), (down, up)},
    }
    named = {kind: [label(arm) for arm, sides in both.items() if sides in cases] for kind, cases in kinds.items()}
    return [f"{kind}: {', '.join(names) or 'none'}." for kind, names in named.items()]


def price(means: pd.DataFrame, style: pd.DataFrame) -> str:
    """Arms above the base in score but below it in right answers or in claims; intervals have to be disjoint."""
    scores, wide = averages(means), style.set_index(["arm", "measure"])
    above = [arm for arm in scores.index if scores.low[arm] > scores.high["base"]]
    if not above:
        return "No arm has a score interval above the base's interval."
    parts = [f"Score interval above the base's: {', '.join(map(label, above))}"]
    for measure, words in (("right", "Of these, fewer right answers"), ("claims", "Fewer claims")):
        fewer = [label(arm) for arm in above if wide.high[arm, measure] < wide.low["base", measure]]
        parts.append(f"{words}: {', '.join(fewer) or 'none'}")
    return ". ".join(parts) + "."
