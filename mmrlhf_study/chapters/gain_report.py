"""What the preference chapters report: metrics, headline numbers, and sentences that say only what the numbers show."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mmrlhf_study.chapters.reporting import Headline
from mmrlhf_study.evaluation.gains import AVERAGE, label
from mmrlhf_study.evaluation.paper import FIGURE_12A

PAPER = "{} on average of four benchmarks, one run (Fig. 12a)"


def shown(row: Any) -> str:
    """`5.31 [5.02, 5.60]` of a row with value, low and high."""
    return f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]"


def averages(found: pd.DataFrame) -> pd.DataFrame:
    """The rows of the average, by arm."""
    return found[found.family == AVERAGE].set_index("arm")


def headlines(found: pd.DataFrame, compared: pd.DataFrame, world: str) -> list[Headline]:
    """Front-page numbers: the average of the arms found, and MM-DPO's difference to each of them."""
    rows = []
    for arm, row in averages(found).iterrows():
        paper = PAPER.format(FIGURE_12A[arm]) if arm in FIGURE_12A else ""
        rows.append(Headline(f"mean score: {label(arm)}", row.value, row.low, row.high, world, paper))
    for row in compared[compared.against.isin(set(found.arm))].itertuples():
        paper = (
            PAPER.format(f"{FIGURE_12A['mm_dpo'] - FIGURE_12A[row.against]:+.1f}") if row.against in FIGURE_12A else ""
        )
        rows.append(Headline(f"MM-DPO less {label(row.against)}", row.difference, row.low, row.high, world, paper))
    return rows


def keyed(rows: pd.DataFrame, *names: str) -> dict[str, Any]:
    """A table as nested plain numbers: one level for each of these columns, then the others; NaN is left out."""
    nested: dict[str, Any] = {}
    for row in rows.to_dict("records"):
        place = nested
        for name in names:
            place = place.setdefault(str(row[name]), {})
        rest = {key: value for key, value in row.items() if key not in names and not pd.isna(value)}
        place |= {key: value if isinstance(value, str) else float(value) for key, value in rest.items()}
    return nested


def against(compared: pd.DataFrame, arm: str = "mm_dpo") -> list[str]:
    """A sentence for every comparison of an arm."""
    said = []
    for row in compared.rename(columns={"p (Holm)": "holm"}).itertuples():
        p = f"p {row.holm:.3f}" if row.holm >= 0.001 else "p below 0.001"
        numbers = f"{row.difference:+.2f} [{row.low:+.2f}, {row.high:+.2f}], {p} after Holm"
        said.append(f"{label(arm)} against {label(row.against)}: {numbers}, d_z {row.d_z:+.2f}; {row.verdict}.")
    return said


def order(found: pd.DataFrame) -> str:
    """The arms of the paper's Fig. 12a by their mean score here, and by the paper's."""
    mine = averages(found).value
    here = sorted((arm for arm in FIGURE_12A if arm in mine.index), key=lambda arm: -mine[arm])
    theirs = sorted(here, key=lambda arm: -FIGURE_12A[arm])
    orders = [" > ".join(map(label, names)) for names in (here, theirs)]
    return f"By mean score here: {orders[0]}. In the paper: {orders[1]}."


def survival(compared: pd.DataFrame) -> str:
    """Whether there is a gain over DPO to explain, and which explanations leave it standing."""
    verdict = dict(zip(compared.against, compared.verdict, strict=True))
    if verdict.get("dpo") != "ahead":
        return (
            f"Against DPO, MM-DPO is {verdict.get('dpo', 'not compared')}: there is no gain here that needs explaining."
        )
    rivals = [arm for arm in ("sft", "shuffled", "constant_beta") if arm in verdict]
    left = [label(arm) for arm in rivals if verdict[arm] != "ahead"]
    if not left:
        return "MM-DPO is ahead of DPO and of every alternative explanation tried."
    return f"MM-DPO is ahead of DPO, but not told apart from, or behind: {', '.join(left)}. These may explain the gain."


def selection(dev: pd.DataFrame, test: pd.DataFrame, candidates: Sequence[str], chosen: str) -> list[str]:
    """What the validation split chose, and what became of it on the test split."""
    on_dev, on_test = averages(dev), averages(test)
    best = max(candidates, key=lambda arm: on_test.value[arm])
    rank = sorted(candidates, key=lambda arm: -on_test.value[arm]).index(chosen) + 1
    first, then = shown(on_dev.loc[chosen]), shown(on_test.loc[chosen])
    return [
        f"The validation split chose {label(chosen)} of {len(candidates)} configurations, with {first}.",
        f"On the test split that has {then}, rank {rank} of {len(candidates)}; the best there is {label(best)} with "
        f"{shown(on_test.loc[best])}.",
    ]


def seeds(parts: Mapping[str, float], questions: int) -> str:
    """How much seeds and questions move an arm's score, as standard deviations."""
    return (
        f"Standard deviations of MM-DPO's score: {parts['between_items']:.2f} between questions, "
        f"{parts['between_seeds']:.2f} between the means of seeds over {questions} questions."
    )


def hacking(changed: pd.DataFrame) -> list[str]:
    """Arms whose reward and whose score moved against the base policy, by their intervals."""
    up = {(row.arm, row.measure) for row in changed.itertuples() if row.low > 0}
    down = {(row.arm, row.measure) for row in changed.itertuples() if row.high < 0}
    rises = {arm for arm, measure in up if measure == "reward"}
    better, worse = ({arm for arm, measure in some if measure == "score"} for some in (up, down))
    kinds = {
        "reward and score rise": rises & better,
        "reward rises and score falls": rises & worse,
        "score rises without reward": better - rises,
    }
    arms = list(dict.fromkeys(changed.arm))
    named = {kind: [label(arm) for arm in arms if arm in some] for kind, some in kinds.items()}
    return [f"Arms whose {kind}: {', '.join(some) or 'none'}." for kind, some in named.items()]


def price(found: pd.DataFrame, habits: pd.DataFrame) -> str:
    """Arms above the base in score that give fewer right answers or make fewer claims, where intervals lie apart."""
    mine, wide = averages(found), habits.set_index(["arm", "measure"])
    above = [arm for arm in mine.index if mine.low[arm] > mine.high["base"]]
    told = []
    for measure, words in (("right", "fewer of their answers are right"), ("claims", "they claim less")):
        low = wide.low["base", measure]
        fewer = [label(arm) for arm in above if wide.high[arm, measure] < low]
        told.append(f"{words} in {len(fewer)} ({', '.join(fewer) or 'none'})")
    return f"Of {len(above)} arms whose score lies above the base's, intervals apart, {'; '.join(told)}."
