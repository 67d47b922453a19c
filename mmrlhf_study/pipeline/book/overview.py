"""One figure of what all chapters found: their headline numbers with 95 % intervals, one panel per question."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mmrlhf_core.data import storage
from mmrlhf_study.pipeline.book import findings
from mmrlhf_study.pipeline.chapters import chapters

OVERVIEW_FILE = "reports/overview.png"  # committed, so that the README can show it

# Chapter's stage, what the panel shows, and which of the chapter's headline numbers it takes: the group is its name.
PANELS = (
    ("reward_model", "Reward model: share of test pairs ordered as people do", r"reward model, (.+): ACC"),
    ("mm_dpo", "Alignment: mean truth score on held-out questions", r"mean score: (.+)"),
    ("self_improvement", "Self-improvement: gain in truth score, by what ranks the answers", r"(.+): gain over base.*"),
    ("evaluation", "All benches: gain over base in points", r"(?:policies/)?(.+): gain, all benches, points"),
    ("evaluation", "Safety: gain over base in points", r"(?:policies/)?(.+): gain, safety, points"),
)


def chosen(headline: Mapping[str, dict[str, Any]], pattern: str) -> list[tuple[str, dict[str, Any]]]:
    """The headline numbers whose whole label matches, by value, the smallest first."""
    found = [(match[1], row) for label, row in headline.items() if (match := re.fullmatch(pattern, label))]
    return sorted(found, key=lambda named: (named[1]["value"], named[0]))


def figure(headlines: Mapping[str, Mapping[str, dict[str, Any]]]) -> Figure | None:
    """The panels of the chapters that have such numbers; none where no chapter has."""
    panels = [(title, chosen(headlines.get(stage, {}), pattern)) for stage, title, pattern in PANELS]
    panels = [(title, rows) for title, rows in panels if rows]
    if not panels:
        return None
    heights = [max(len(rows), 3) for _, rows in panels]
    drawn = Figure(figsize=(9, sum(heights) * 0.24 + len(panels) * 0.75), layout="constrained")
    axes = drawn.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    for axis, (title, rows) in zip(axes, panels, strict=True):
        values = [row["value"] for _, row in rows]
        ends = [[row["value"] - row["low"] for _, row in rows], [row["high"] - row["value"] for _, row in rows]]
        axis.errorbar(values, range(len(rows)), xerr=ends, fmt="o", color="#0b6e6e", ecolor="#7fb3b3", capsize=2)
        axis.set_yticks(range(len(rows)), [name for name, _ in rows])
        axis.set_ylim(-0.6, len(rows) - 0.4)
        worlds = ", ".join(sorted({row["world"] for _, row in rows}))
        axis.set_title(f"{title} ({worlds})", loc="left", fontsize=10)
        axis.grid(axis="x", color="#dfe5ec")
        axis.spines[["top", "right"]].set_visible(False)
        if min(row["low"] for _, row in rows) < 0:
            axis.axvline(0, color="#5b6876", linewidth=0.8)
    return drawn


def write(target: Path) -> bool:
    """Draw the headline numbers of all chapters into `target`; False where no panel has any."""
    drawn = figure({c.stage: findings.metrics(c.stage).get("headline", {}) for c in chapters()})
    if drawn is not None:
        with storage.writing(target) as temporary:
            drawn.savefig(temporary, format="png", dpi=120, metadata={"Software": None})
    return drawn is not None
