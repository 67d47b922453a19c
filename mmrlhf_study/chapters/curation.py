"""Displays of chapter 01: cards, grids of pictures, the effect of sampling evenly over clusters, and sentences."""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats

from mmrlhf_core.data.records import Query
from mmrlhf_core.models import prompts
from mmrlhf_study.chapters import figures
from mmrlhf_study.chapters.intervals import wilson
from mmrlhf_study.chapters.reporting import shown
from mmrlhf_study.curation import sample
from mmrlhf_study.evaluation.compare import BETTER, OPEN, WORSE

GRID_FRAMES = 5  # frames of a clip on its card
VARIETY = {  # measures of a query set, and whether more is better
    "coverage": ("coverage of topic and class", True),
    "entropy": ("entropy over clusters", True),
    "largest": ("share of the largest combination", False),
}


def card(query: Query, kind: str, media: str | Path) -> str:
    """A query as HTML: its class, its pictures or the frames of its clip in a row, its question and answer."""
    prompt = prompts.of_query(query, media, GRID_FRAMES)
    row = "".join(figures.picture(image, escape(query.id)) for image in prompt.images + prompt.clip)
    text = f"<p><b>{escape(prompt.text)}</b></p><p>{escape(query.answer) or '<i>no reference answer</i>'}</p>"
    return f'<div class="card"><p class="soft">{escape(kind)}</p><div class="frames">{row}</div>{text}</div>'


def grid(
    rows: Sequence[Sequence[Image.Image | None]],
    names: Sequence[str],
    above: Mapping[int, str] | None = None,
    below: Sequence[str] = (),
) -> Figure:
    """Named rows of pictures, None for a gap, with titles above some columns and a line of text below each."""
    size = (1.35 * len(rows[0]), 1.35 * len(rows))  # inches, so that a picture is at least 96 pixels high
    near = {"wspace": 0.05, "hspace": 0.05}
    figure, axes = plt.subplots(len(rows), len(rows[0]), squeeze=False, figsize=size, gridspec_kw=near)
    for cells, pictures, name in zip(axes, rows, names, strict=True):
        for cell, picture in zip(cells, pictures, strict=True):
            cell.set(xticks=[], yticks=[])
            if picture is None:
                cell.axis("off")
            else:
                cell.imshow(picture)
        cells[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    for column, text in (above or {}).items():
        axes[0][column].set_title(text, fontsize=9, loc="left")
    for cell, text in zip(axes[-1], below, strict=False):
        cell.set_xlabel(text, fontsize=8)
    return figure


def variety(
    ids: Sequence[str], cells: Mapping[str, str], clusters: Mapping[str, int], possible: int
) -> dict[str, float]:
    """Three measures of a query set. `cells` gives each query its combination of topic and class.

    `coverage` is the share of `possible` combinations with a query in the set, `entropy` is over clusters in bits,
    `largest` is the share of the most frequent combination.
    """
    seen = Counter(cells[name] for name in ids)
    entropy = stats.entropy(list(Counter(clusters[name] for name in ids).values()), base=2)
    return {"coverage": len(seen) / possible, "entropy": float(entropy), "largest": max(seen.values()) / len(ids)}


def effects(
    queries: Sequence[Query],
    kinds: Mapping[str, str],
    clusters: Mapping[str, int],
    counts: Sequence[Mapping[str, int]],
    seeds: Sequence[int],
) -> pd.DataFrame:
    """Variety of query sets that are drawn evenly over clusters or at random, per composition in `counts`.

    Both ways draw the same number per kind; "at random" ignores clusters. One row per measure, way and size, with the
    mean and the 2.5 % and 97.5 % quantiles over seeds.
    """
    cells = {query.id: f"{query.topic} {kinds[query.id]}" for query in queries if kinds[query.id] in counts[0]}
    possible = len(set(cells.values()))
    rows = []
    for how, drawn_over in {"even over clusters": clusters, "at random": dict.fromkeys(clusters, 0)}.items():
        for wanted in counts:
            for seed in seeds:
                ids = sorted(sample.draw(queries, kinds, drawn_over, wanted, seed))
                measures = variety(ids, cells, clusters, possible)
                rows.append({"drawn": how, "queries": len(ids), "seed": seed, **measures})
    long = pd.DataFrame(rows).melt(["drawn", "queries", "seed"], var_name="measure")
    groups = long.groupby(["measure", "drawn", "queries"], sort=True)["value"]
    return groups.agg(mean="mean", low=lambda v: v.quantile(0.025), high=lambda v: v.quantile(0.975)).reset_index()


def _counted(kinds: Mapping[str, int]) -> str:
    """`sign 60, chart 40`, largest first."""
    return ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items(), key=lambda item: (-item[1], item[0])))


def duplicates(plants: pd.DataFrame, wrong: Mapping[str, int], dropped: int) -> list[str]:
    """`plants`: recall per kind of planted near-duplicate; `wrong`: queries dropped by mistake, per family."""
    if plants.empty:
        return ["No near-duplicates were planted in this pool, so recall and precision are unknown."]
    best, worst = (plants.loc[at] for at in (plants["recall"].idxmax(), plants["recall"].idxmin()))
    shares = [f"{row.planted} ({shown(row.recall, row.low, row.high)})" for row in (best, worst)]
    joined = f"{sum(wrong.values())} of {dropped} dropped queries are no duplicates"
    return [
        f"Recall of planted near-duplicates is highest for {shares[0]} and lowest for {shares[1]}.",
        f"{joined} ({_counted(wrong)})." if wrong else f"{joined}.",
    ]


def gate(kinds: Mapping[str, int], noticed: int, canaries: int) -> list[str]:
    """`kinds`: queries removed by the leakage check; `canaries`: planted copies, of which `noticed` are found."""
    removed = f"The leakage check removes {sum(kinds.values())} queries"
    sentences = [f"{removed} ({_counted(kinds)})." if kinds else f"{removed}."]
    if kinds.get("exact"):
        sentences.append(f"The pictures of {kinds['exact']} of them are byte-identical to evaluation pictures.")
    if canaries:
        sentences.append(
            f"The check finds {noticed} of {canaries} planted copies: {shown(*wilson(noticed, canaries))}."
        )
    return sentences


def drawing(short: Mapping[str, tuple[int, int]], effect: pd.DataFrame) -> list[str]:
    """`short`: (exhausted clusters, clusters) per class; `effect`: output of `effects`."""
    counts = ", ".join(f"{kind} {gone} of {there}" for kind, (gone, there) in short.items())
    sentences = [f"Clusters too small for an even share: {counts}."]
    rows = effect.set_index(["measure", "drawn", "queries"]).sort_index()
    sizes = sorted(set(effect["queries"]))
    for measure, (name, more) in VARIETY.items():
        even, random = (rows.loc[measure, how, sizes[-1]] for how in ("even over clusters", "at random"))
        apart = even.low > random.high or even.high < random.low
        verdict = OPEN if not apart else BETTER if (even.low > random.high) == more else WORSE
        sentences.append(
            f"{name.capitalize()} is {shown(*even)} if drawn evenly, {shown(*random)} at random: {verdict}."
        )
    if len(sizes) > 1:
        before, last = (rows.loc["coverage", "even over clusters", n]["mean"] for n in sizes[-2:])
        sentences.append(f"From {sizes[-2]:,} to {sizes[-1]:,} queries, coverage changes by {last - before:+.3f}.")
    return sentences


def attack(misled: Mapping[str, int], attacked: int, misleading: int, taken: int) -> list[str]:
    """`misled`: how many of `attacked` pictures mislead, by `random` change and by `attack`."""
    if not attacked:
        return []
    chance, aimed = (wilson(misled[how], attacked) for how in ("random", "attack"))
    more = "more often" if aimed.low > chance.high else f"{OPEN} at this sample size"
    return [
        f"The attack misleads the model on {shown(*aimed)} of the pictures, random noise of the same size on "
        f"{shown(*chance)}: {more}.",
        f"Of {taken} selected pictures, {misleading} mislead.",
    ]
