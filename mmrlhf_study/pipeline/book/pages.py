"""The pages of the book that are not chapters: front page, numbers of all chapters, glossary, symbols, sources, API."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mmrlhf_core.objectives.symbols import SYMBOLS
from mmrlhf_study.pipeline.book import findings
from mmrlhf_study.pipeline.book.findings import Findings
from mmrlhf_study.pipeline.book.text import cited, plain, table
from mmrlhf_study.pipeline.chapters import Chapter, read

INTRODUCTION = """
MM-RLHF ([arXiv 2502.10391](https://arxiv.org/abs/2502.10391)) aligns multimodal language models with human preferences:
a curated set of questions, responses ranked by annotators, a reward model that writes critiques, and a preference loss
that trusts clear pairs more. This book rebuilds each part as a chapter that has been run. Chapters are read in order or
alone; each one says what it reads, what it writes, and how to run it again.

Numbers marked **MiniWorld** were measured in a small synthetic world whose truth is known. They show whether a
mechanism works. They cannot be compared with the numbers of the paper, which stand beside them.
"""


def heading(chapter: Chapter) -> dict[str, str]:
    """Title and the `**Name:** text` lines of a chapter's first cell."""
    first, *rest = read(chapter.file).cells[0].source.splitlines()
    named = {}
    for line in rest:
        name, colon, text = line.strip().removesuffix("\\").partition(":**")
        if colon and name.startswith("**"):
            named[name[2:]] = text.strip()
    return {"title": first.lstrip("# ").strip(), **named}


def headline_rows(rows: dict[str, dict[str, Any]], labels: Iterable[str]) -> Iterator[list[str]]:
    """Label, our number with its interval, where it was measured, and the paper's number."""
    for label in labels:
        row = rows.get(label)
        shown = [findings.value(row), row["world"], row["paper"] or "–"] if row else [findings.MISSING, "", ""]
        yield [plain(label), *map(plain, shown)]


HEADLINE = ("measured", "value [95 % interval]", "in", "the paper")


def claim_table(known: Findings, chapters: Sequence[Chapter], link: str) -> str:
    """Claims of the paper, verdict, number, chapter; `link` is a template such as `chapters/{}.ipynb`."""
    names = {chapter.stage: chapter.name for chapter in chapters}
    rows = []
    for claim in known.claims:
        number, measured = plain(findings.number(claim)), plain(claim.measured)
        chapter = names.get(claim.number[0], "")
        target = f"[{chapter[:2]}]({link.format(chapter)})" if chapter else ""
        rows.append([claim.claim, f"**{claim.verdict}**", number, measured, target])
    return table(("the paper says", "verdict", "here [95 % interval]", "measured", "chapter"), rows)


def other_profile(known: Findings, runs: Sequence[dict[str, Any]]) -> str:
    """A warning where the words describe the numbers of another profile."""
    profile = runs[-1]["parameters"]["profile"] if runs else known.profile
    if profile == known.profile:
        return ""
    return f"The verdicts describe the profile `{known.profile}`; the numbers below are of the profile `{profile}`.\n"


def facts(runs: Sequence[dict[str, Any]]) -> str:
    """Profile, seed, hardware, times and versions of the run."""
    last, base = runs[-1], runs[-1]["parameters"]
    rows = {
        "profile": base["profile"],
        "seed": base["seed"],
        "threads": base["threads"],
        "time of all chapters": f"{sum(run['seconds'] for run in runs) / 60:.1f} minutes",
        "largest memory": f"{max(run['peak_memory_mib'] for run in runs):,} MiB",
        "last run": last["started"].replace("T", " ").replace("+00:00", " UTC"),
        "machine": "{system}, {cores} cores, {memory_gib} GiB, accelerators: {accelerators}".format(**last["hardware"]),
        "versions": ", ".join(f"{name} {number}" for name, number in last["versions"].items()),
    }
    return table(("this run", ""), ([name, plain(str(value))] for name, value in rows.items()))


def chapter_table(chapters: Sequence[Chapter], runs: Sequence[dict[str, Any]]) -> str:
    """Chapters with the sections of the paper and the time they took."""
    rows = []
    for chapter, run in zip(chapters, runs, strict=True):
        head = heading(chapter)
        link = f"[{plain(head['title'])}](chapters/{chapter.name}.ipynb)"
        rows.append([link, cited(head.get("Paper", "")), f"{run['seconds']:.0f} s"])
    return table(("chapter", "paper", "time"), rows)


def toctree(caption: str, files: Iterable[str]) -> str:
    return f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(files) + "\n```\n"


def front(known: Findings, chapters: Sequence[Chapter], runs: Sequence[dict[str, Any]], overview: bool) -> str:
    """The page that opens first."""
    picture = (
        "```{figure} overview.png\n:alt: Headline numbers of all chapters with their intervals\n:width: 100%\n\n"
        "The main results of all chapters with 95 % intervals, each from the chapter's own metrics.\n```\n"
    )
    parts = [
        "# MM-RLHF, reproduced chapter by chapter",
        INTRODUCTION,
        "## What reproduces and what does not",
        other_profile(known, runs),
        claim_table(known, chapters, "chapters/{}.ipynb"),
        picture if overview else "",
        "## Chapters",
        chapter_table(chapters, runs),
        "## The run",
        facts(runs),
        toctree("Chapters", (f"chapters/{chapter.name}" for chapter in chapters)),
        toctree("Guides", ("teach", "limits", "engine")),
        toctree("Reference", ("numbers", "glossary", "symbols", "api", "sources")),
    ]
    return "\n".join(parts)


def numbers(chapters: Sequence[Chapter]) -> str:
    """The headline numbers of every chapter beside the paper's."""
    parts = ["# Numbers beside the paper's\n", "Every number comes from a file in `reports/metrics`.\n"]
    for chapter in chapters:
        rows = findings.metrics(chapter.stage).get("headline", {})
        parts += [f"## {heading(chapter)['title']}\n", table(HEADLINE, headline_rows(rows, rows)) if rows else ""]
    return "\n".join(parts)


def symbols() -> str:
    """The symbols of the objectives: name in the code, symbol in the papers, meaning."""
    rows = ([f"`{name}`", plain(sign), plain(meaning)] for name, (sign, meaning) in SYMBOLS.items())
    note = (
        "Shapes: `B` pairs or critiques, `G` responses of a group, `T` tokens, `n` responses compared with one another."
    )
    return "\n".join(["# Symbols\n", f"{note}\n", table(("in the code", "in the papers", "meaning"), rows)])


SOURCES = "# Sources\n\n```{bibliography}\n:all:\n```\n"
