"""Static HTML cards of preference data. Every text is escaped and every picture is decoded and written anew."""

import base64
import difflib
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import inf
from pathlib import Path
from random import Random

from PIL import Image

from mmrlhf_core.data import media, storage
from mmrlhf_core.data.records import Critique, Pair, Query, Ranking, Response
from mmrlhf_study.annotation.pairs import latest
from mmrlhf_study.annotation.records import SCALES, Judgement

MOST_FRAMES = 8
STYLE = """<style>
.mm { border: 1px solid #dfe5ec; border-radius: 10px; padding: .8rem 1rem; margin: .8rem 0; color: #1d2733;
  background: #fff; font: 14px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
.mm .row { display: flex; flex-wrap: wrap; gap: .9rem; } .mm .side { flex: 1 1 18rem; border-radius: 8px;
  padding: .5rem .7rem; background: #f4f6f9; border-left: 4px solid #9aa5b1; }
.mm .better { border-color: #0b6e6e; } .mm .worse { border-color: #c2571a; }
.mm p { margin: .3rem 0; white-space: pre-wrap; }
.mm .soft { color: #5b6876; font-size: 13px; } .mm mark { background: #ffe2a8; padding: 0 .1em; }
.mm img { height: 128px; image-rendering: pixelated; border: 1px solid #dfe5ec; margin-right: 4px; }
.mm .broken { display: inline-block; border: 1px dashed #c2571a; color: #c2571a; padding: .5rem; margin-right: 4px; }
</style>"""


def picture(folder: str | Path, path: str) -> str:
    """A picture of the media folder inside the page, or a box that says it cannot be shown."""
    try:
        file = storage.inside(storage.path(folder), path)
        if not file.is_file():
            raise media.MediaError("missing")
        media.decode(file, path)
        with Image.open(file, formats=media.FORMATS) as image:
            small = image.convert("RGB")
            small.thumbnail((512, 512))
    except (ValueError, OSError):
        return f'<span class="broken">cannot show {escape(repr(path))}</span>'
    data = io.BytesIO()
    small.save(data, "PNG")
    return f'<img alt="{escape(path)}" src="data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}">'


def pictures(folder: str | Path, query: Query) -> str:
    """All pictures of a query, or frames of its clip at even distances."""
    shown = list(query.media)
    if len(shown) > MOST_FRAMES:
        shown = [shown[i * (len(shown) - 1) // (MOST_FRAMES - 1)] for i in range(MOST_FRAMES)]
    return "".join(picture(folder, path) for path in shown)


def marked(text: str, other: str) -> str:
    """Escaped text with the words that `other` does not have at that point marked."""
    mine, theirs = text.split(), other.split()
    parts = []
    for kind, start, end, *_ in difflib.SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes():
        words = escape(" ".join(mine[start:end]))
        if words:
            parts.append(words if kind == "equal" else f"<mark>{words}</mark>")
    return " ".join(parts) or "<i>(nothing)</i>"


def _scores(judgements: Sequence[Judgement]) -> str:
    """`helpfulness 4.3 helpful · ...` of some judgements, on average."""
    if not judgements:
        return ""
    parts = []
    for scale, labels in SCALES.items():
        mean = sum(getattr(one, scale) for one in judgements) / len(judgements)
        parts.append(f"{scale} {mean:.1f} ({labels[round(mean) - 1]})")
    return escape(" · ".join(parts))


def _soft(html: str) -> str:
    return f'<p class="soft">{html}</p>' if html else ""


def _side(kind: str, text: str, notes: Sequence[str]) -> str:
    """One response: who, text, scores and reasons; everything given is HTML already."""
    return f'<div class="side {kind}">{_soft(notes[0])}<p>{text}</p>{"".join(map(_soft, notes[1:]))}</div>'


def _card(query: Query, folder: str | Path, sides: Sequence[str], foot: str) -> str:
    """A query with its pictures above some responses."""
    head = escape(" · ".join(filter(None, (query.id, query.category, query.topic))))
    shown = f"<div>{pictures(folder, query)}</div><p><b>{escape(query.prompt)}</b></p>"
    return f'<div class="mm">{_soft(head)}{shown}<div class="row">{"".join(sides)}</div>{_soft(escape(foot))}</div>'


class Records:
    """The records of a campaign by their ids, for looking things up."""

    def __init__(
        self,
        queries: Iterable[Query],
        responses: Iterable[Response],
        judgements: Iterable[Judgement] = (),
        rankings: Iterable[Ranking] = (),
        critiques: Iterable[Critique] = (),
    ) -> None:
        self.queries = {one.id: one for one in queries}
        self.responses = {one.id: one for one in responses}
        self.critiques = {one.response: one for one in critiques}
        self.judgements: dict[str, list[Judgement]] = {}
        self.rankings: dict[str, dict[str, Ranking]] = {}
        for judgement in latest(judgements):
            self.judgements.setdefault(judgement.response, []).append(judgement)
        for ranking in rankings:  # a later round comes later and takes the place of the first
            self.rankings.setdefault(ranking.query, {})[ranking.annotator] = ranking


def pair_card(pair: Pair, known: Records, folder: str | Path) -> str:
    """Picture, question, both responses with scores and reasons, margins; words that differ are marked."""
    better, worse = known.responses[pair.chosen], known.responses[pair.rejected]
    sides = []
    for name, one, other, reason in (
        ("better", better, worse, pair.chosen_reason),
        ("worse", worse, better, pair.rejected_reason),
    ):
        notes = [
            escape(f"{name}: {one.responder}"),
            _scores(known.judgements.get(one.id, [])),
            escape(f"Why: {reason}"),
        ]
        sides.append(_side(name, marked(one.text, other.text), notes))
    margins = " · ".join(f"{scale} {getattr(pair, scale):+.1f}" for scale in SCALES)
    foot = f"margin {pair.margin:+.2f} ({margins}) · {pair.steps} rank(s) apart · {pair.origin}"
    return _card(known.queries[pair.query], folder, sides, foot)


def query_card(query: str, known: Records, folder: str | Path, ranking: Ranking | None = None) -> str:
    """Picture, question and all responses in the order of their rank, with mean scores and reasons."""
    order = ranking or known.rankings[query]["panel"]
    sides = []
    for rank, name in sorted(zip(order.ranks, order.responses, strict=True)):
        one, why = known.responses[name], known.critiques.get(name)
        notes = [escape(f"rank {rank}: {one.responder}"), _scores(known.judgements.get(name, []))]
        notes += [escape(f"Why: {why.reason}"), escape(f"In full: {why.expanded}")] if why else []
        sides.append(_side("", escape(one.text) or "<i>(nothing)</i>", notes))
    return _card(known.queries[query], folder, sides, "")


def answers_card(query: Query, answers: Iterable[tuple[str, str, str]], folder: str | Path) -> str:
    """Picture, question and answers, each as (heading, text, note)."""
    sides = [
        _side("", escape(text) or "<i>(nothing)</i>", [escape(head), escape(note)]) for head, text, note in answers
    ]
    return _card(query, folder, sides, "")


def page(cards: Iterable[str]) -> str:
    """Cards with their style, to be shown in a notebook or written to a file."""
    return STYLE + "".join(cards)


# ---------------------------------------------------------------- filters


def _disputed(pair: Pair, rankings: Mapping[str, Ranking]) -> bool:
    """Whether some annotator put the worse one of a pair first."""
    for name, one in rankings.items():
        rank = dict(zip(one.responses, one.ranks, strict=True))
        if name != "panel" and rank.get(pair.chosen, 0) > rank.get(pair.rejected, inf):
            return True
    return False


def choose(
    pairs: Iterable[Pair],
    known: Records,
    n: int = 3,
    seed: int = 0,
    category: str = "",
    topic: str = "",
    dimension: str = "",
    margin: tuple[float, float] = (-inf, inf),
    annotator: str = "",
    disputed: bool = False,
) -> tuple[list[Pair], int]:
    """(a seeded sample of `n` pairs that pass every filter given, how many pass).

    `dimension` keeps pairs that differ most on that scale, `annotator` those whose query that person ranked, `disputed`
    those that some annotator orders the other way; `margin` is the least and the most.
    """
    if dimension and dimension not in SCALES:
        raise ValueError(f"No dimension {dimension!r}. Give {', '.join(SCALES)}.")
    found = []
    for pair in pairs:
        query, rankings = known.queries[pair.query], known.rankings.get(pair.query, {})
        gaps = {scale: abs(getattr(pair, scale)) for scale in SCALES}
        if (
            (not category or query.category == category)
            and (not topic or query.topic == topic)
            and (not dimension or gaps[dimension] == max(gaps.values()) > 0)
            and margin[0] <= pair.margin <= margin[1]
            and (not annotator or annotator in rankings)
            and (not disputed or _disputed(pair, rankings))
        ):
            found.append(pair)
    return Random(f"choose {seed}").sample(found, min(n, len(found))), len(found)
