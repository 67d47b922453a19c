"""`reports/index.html`, the page a reviewer opens first: the main results, then one section per chapter, no scripts.

Everything on it comes from files the chapters wrote (metrics, figures, facts of the run), and all of it is escaped.
"""

import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from mmrlhf_core.data import storage
from mmrlhf_study.pipeline import overview
from mmrlhf_study.pipeline.chapters import Chapter, ChapterError, chapters, read

STYLE = """
:root { color-scheme: light; --ink: #1d2733; --soft: #5b6876; --line: #dfe5ec; --paper: #fff; --accent: #0b6e6e; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f6f9; color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: .5rem 0; } h2 { font-size: 1.35rem; margin: 0 0 .2rem; }
p { margin: .4rem 0; } a { color: var(--accent); } .soft { color: var(--soft); font-size: .92rem; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 1.1rem; }
section { margin: 1.2rem 0; }
.facts { display: flex; flex-wrap: wrap; gap: .4rem 1.6rem; margin: .8rem 0; } .facts b { display: block; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .93rem; margin: .7rem 0; }
th, td { text-align: left; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
figure { margin: 1rem 0 0; } figure img { max-width: 100%; height: auto; display: block; }
nav { margin: 1rem 0; }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .3rem; }
"""


def heading(chapter: Chapter) -> dict[str, str]:
    """Title and the `**Name:** text` lines of a chapter's first cell."""
    lines = read(chapter.file).cells[0].source.splitlines()
    named = {}
    for line in lines[1:]:
        name, colon, text = line.strip().removesuffix("\\").partition(":**")
        if colon and name.startswith("**"):
            named[name[2:]] = text.strip()
    return {"title": lines[0].lstrip("# ").strip(), **named}


def number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def headline_table(rows: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Our number with its interval and world, and the paper's beside it."""
    if not rows:
        return
    names = ("Here", "Value (95 % interval)", "Measured on", "Paper")
    yield '<div class="wide"><table><tr>' + "".join(f"<th>{name}</th>" for name in names) + "</tr>"
    for label, row in rows.items():
        value = f"{number(row['value'])} ({number(row['low'])} to {number(row['high'])})"
        cells = f"<td>{escape(label)}</td><td class='number'>{escape(value)}</td><td>{escape(row['world'])}</td>"
        yield f"<tr>{cells}<td>{escape(row['paper'] or 'not reported')}</td></tr>"
    yield "</table></div>"


def figure(file: Path) -> str:
    """A figure with the caption stored inside the file."""
    with Image.open(file) as picture:
        caption = picture.info.get("Description", file.stem)
    source, caption = escape(file.relative_to(storage.path("reports")).as_posix()), escape(caption)
    return f'<figure><img src="{source}" alt="{caption}" loading="lazy"><figcaption>{caption}</figcaption></figure>'


def section(chapter: Chapter, facts: dict[str, Any]) -> Iterator[str]:
    """One chapter: title, paper section, key numbers, figures, link to the executed chapter."""
    head = heading(chapter)
    yield f'<section id="{escape(chapter.stage)}"><h2>{escape(head["title"])}</h2>'
    yield f'<p class="soft">Paper: {escape(head.get("Paper", ""))} · ran {facts["seconds"]:.0f} s · '
    yield f"peak memory {facts['peak_memory_mib']} MiB</p>"
    yield f'<p><a href="chapters/{escape(chapter.name)}.html">Read the executed chapter</a></p>'
    yield from headline_table(storage.read_json(f"reports/metrics/{chapter.stage}.json")["headline"])
    for file in sorted(storage.path(f"reports/figures/{chapter.stage}").glob("*.png")):
        yield figure(file)
    yield "</section>"


def front(runs: list[dict[str, Any]]) -> Iterator[str]:
    """What was run: profile, seed, versions, hardware, times."""
    last, base = runs[-1], runs[-1]["parameters"]
    shown = {
        "Profile": base["profile"],
        "Seed": base["seed"],
        "Threads": base["threads"],
        "Chapters": len(runs),
        "Time": f"{sum(run['seconds'] for run in runs) / 60:.1f} min",
        "Last run": last["started"].replace("T", " ").replace("+00:00", " UTC"),
        "Machine": "{system}, {cores} cores, {memory_gib} GiB, accelerators: {accelerators}".format(**last["hardware"]),
    }
    yield "<h1>MM-RLHF, reproduced chapter by chapter</h1>"
    yield '<p class="soft">Numbers marked MiniWorld come from a small synthetic world; they never stand for '
    yield "the paper's own.</p>"
    yield '<div class="facts">' + "".join(f"<span><b>{escape(k)}</b>{escape(str(v))}</span>" for k, v in shown.items())
    versions = ", ".join(f"{name} {number}" for name, number in last["versions"].items())
    yield f'</div><p class="soft">{escape(versions)}</p>'


def whole() -> Iterator[str]:
    """The main results of all chapters in one figure, which is written beside the page."""
    stages = [chapter.stage for chapter in chapters()]
    found = {stage: storage.read_json(f"reports/metrics/{stage}.json")["headline"] for stage in stages}
    drawn = overview.figure(found)
    if drawn is not None:
        with storage.writing(overview.FILE) as temporary:
            caption = "What the chapters found, with 95 % intervals. The numbers are in the tables below."
            drawn.savefig(temporary, format="png", dpi=120, metadata={"Description": caption, "Software": None})
        yield figure(storage.path(overview.FILE))


def contents(done: list[Chapter]) -> str:
    """Links to the chapters' sections."""
    links = (f'<a href="#{escape(c.stage)}">{escape(heading(c)["title"])}</a>' for c in done)
    return f"<nav>{' · '.join(links)}</nav>"


def page() -> str:
    """The whole page."""
    done = [(c, storage.read_json(f"reports/runs/{c.stage}.json")) for c in chapters()]
    body = [*front([facts for _, facts in done]), contents([c for c, _ in done]), *whole()]
    body += [line for c, facts in done for line in section(c, facts)]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>MM-RLHF compendium: results</title><style>{STYLE}</style>"
    main = "".join(body)
    return f'<!doctype html><html lang="en"><head>{head}</head><body><main>{main}</main></body></html>\n'


def main() -> int:
    try:
        storage.write_text("reports/index.html", page())
    except (ChapterError, ValueError, OSError) as error:
        print(f"site: {error}", file=sys.stderr)
        return 2
    print("Open reports/index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
