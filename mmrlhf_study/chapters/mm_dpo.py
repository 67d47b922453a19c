"""Chapter 04: headline numbers and sentences of the comparison of arms, and the paper's Fig. 5.

Every sentence follows from the numbers of the run.
"""

from collections.abc import Sequence

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
    """Front-page numbers: the average of the arms in `means`, and MM-DPO's difference from each of them."""
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
    """A sentence for every comparison of an arm."""
    lines = []
    for row in compared.itertuples():
        gap = shown(row.difference, row.low, row.high, sign="+")
        lines.append(f"{label(arm)} {RELATION[row.verdict]} {label(row.against)}: {gap}.")
    return lines


def order(means: pd.DataFrame) -> str:
    """The arms of the paper's Fig. 12a by their mean score here, and by the paper's."""
    value = averages(means).value
    here = sorted((arm for arm in FIGURE_12A if arm in value.index), key=lambda arm: -value[arm])
    paper = sorted(here, key=lambda arm: -FIGURE_12A[arm])
    orders = [" > ".join(map(label, names)) for names in (here, paper)]
    return f"By mean score here: {orders[0]}. In the paper: {orders[1]}."


def explanations(compared: pd.DataFrame) -> str:
    """Whether there is a gain over DPO to explain, and which alternative explanations remain."""
    verdict = dict(zip(compared.against, compared.verdict, strict=True))
    if "dpo" not in verdict:
        return "MM-DPO was not compared with DPO."
    if verdict["dpo"] != compare.BETTER:
        return f"MM-DPO {RELATION[verdict['dpo']]} DPO, so there is no gain to explain."
    left = [
        label(arm) for arm in ("sft", "shuffled", "constant_beta") if verdict.get(arm, compare.BETTER) != compare.BETTER
    ]
    if not left:
        return "MM-DPO is better than DPO and than every alternative explanation that was tried."
    return f"MM-DPO is better than DPO, but not shown to be better than {', '.join(left)}. These may explain the gain."


def hacking(changes: pd.DataFrame) -> list[str]:
    """Arms whose reward and whose score moved against the base policy, by their intervals."""
    side = {(row.arm, row.measure): compare.side(row.low, row.high) for row in changes.itertuples()}
    both = {arm: (side[arm, "reward"], side[arm, "score"]) for arm in dict.fromkeys(changes.arm)}
    up, down = compare.BETTER, compare.WORSE
    kinds = {
        "reward and score rise": {(up, up)},
        "reward rises and score falls": {(up, down)},
        "score rises without reward": {(compare.OPEN, up), (down, up)},
    }
    named = {kind: [label(arm) for arm, sides in both.items() if sides in cases] for kind, cases in kinds.items()}
    return [f"Arms whose {kind}: {', '.join(names) or 'none'}." for kind, names in named.items()]


def price(means: pd.DataFrame, style: pd.DataFrame) -> str:
    """Arms above the base in score that give fewer right answers or make fewer claims, where intervals lie apart."""
    scores, wide = averages(means), style.set_index(["arm", "measure"])
    above = [arm for arm in scores.index if scores.low[arm] > scores.high["base"]]
    parts = []
    for measure, words in (("right", "fewer answers are right"), ("claims", "answers make fewer claims")):
        fewer = [label(arm) for arm in above if wide.high[arm, measure] < wide.low["base", measure]]
        parts.append(f"{words} in {', '.join(fewer) or 'none'}")
    return f"The interval of {len(above)} arms lies above the base's score; of these, {' and '.join(parts)}."
