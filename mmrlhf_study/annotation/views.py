"""Static HTML cards of preference data. Every text is escaped, every picture is decoded and written anew."""

import difflib
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
from mmrlhf_study.chapters import figures
from mmrlhf_study.chapters.figures import STYLE

MOST_FRAMES = 8
_NOTHING = "<i>(nothing)</i>"


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
    return figures.picture(small, escape(path))


def pictures(folder: str | Path, query: Query) -> str:
    """All pictures of a query, or frames of its clip at even distances, in one row."""
    paths = list(query.media)
    if len(paths) > MOST_FRAMES:
        paths = [paths[i * (len(paths) - 1) // (MOST_FRAMES - 1)] for i in range(MOST_FRAMES)]
    return f'<div class="frames">{"".join(picture(folder, path) for path in paths)}</div>'


def marked(text: str, other: str) -> str:
    """Escaped text; words that `other` does not have at that point are marked."""
    words, parts = text.split(), []
    for kind, start, end, *_ in difflib.SequenceMatcher(None, words, other.split(), autojunk=False).get_opcodes():
        if start < end:
            part = escape(" ".join(words[start:end]))
            parts.append(part if kind == "equal" else f"<mark>{part}</mark>")
    return " ".join(parts) or _NOTHING


def _scores(judgements: Sequence[Judgement]) -> str:
    """Mean scores in words, such as `helpfulness 4.3 (helpful) · ...`; blank without judgements."""
    parts = []
    for scale, labels in SCALES.items() if judgements else ():
        mean = sum(getattr(judgement, scale) for judgement in judgements) / len(judgements)
        parts.append(f"{scale} {mean:.1f} ({labels[round(mean) - 1]})")
    return " · ".join(parts)


def _soft(text: str) -> str:
    return f'<p class="soft">{escape(text)}</p>' if text else ""


def _side(kind: str, html: str, notes: Sequence[str]) -> str:
    """One response: the first note above it, the others below; `html` is escaped already, notes are not."""
    return f'<div class="side {kind}">{_soft(notes[0])}<p>{html}</p>{"".join(map(_soft, notes[1:]))}</div>'


def _card(query: Query, folder: str | Path, sides: Sequence[str], foot: str = "") -> str:
    """A query with its pictures above its responses."""
    head = " · ".join(filter(None, (query.id, query.category, query.topic)))
    top = f"{_soft(head)}{pictures(folder, query)}<p><b>{escape(query.prompt)}</b></p>"
    return f'<div class="card">{top}<div class="row">{"".join(sides)}</div>{_soft(foot)}</div>'


class Records:
    """The records of a campaign, looked up by id."""

    def __init__(
        self, queries: Iterable[Query], responses: Iterable[Response], judgements: Iterable[Judgement] = (),
        rankings: Iterable[Ranking] = (), critiques: Iterable[Critique] = (),
    ) -> None:  # fmt: skip
        self.queries = {query.id: query for query in queries}
        self.responses = {response.id: response for response in responses}
        self.critiques = {critique.response: critique for critique in critiques}
        self.judgements: dict[str, list[Judgement]] = {}
        self.rankings: dict[str, dict[str, Ranking]] = {}
        for judgement in latest(judgements):
            self.judgements.setdefault(judgement.response, []).append(judgement)
        for ranking in rankings:  # a later round replaces the first one
            self.rankings.setdefault(ranking.query, {})[ranking.annotator] = ranking


def pair_card(pair: Pair, known: Records, folder: str | Path) -> str:
    """Pictures, question, both responses with scores and reasons, margins; words that differ are marked."""
    better, worse = known.responses[pair.chosen], known.responses[pair.rejected]
    sides = []
    for kind, response, other, reason in (
        ("better", better, worse, pair.chosen_reason),
        ("worse", worse, better, pair.rejected_reason),
    ):
        notes = [f"{kind}: {response.responder}", _scores(known.judgements.get(response.id, [])), f"Why: {reason}"]
        sides.append(_side(kind, marked(response.text, other.text), notes))
    margins = " · ".join(f"{scale} {getattr(pair, scale):+.1f}" for scale in SCALES)
    foot = f"margin {pair.margin:+.2f} ({margins}) · {pair.steps} rank(s) apart · {pair.origin}"
    return _card(known.queries[pair.query], folder, sides, foot)


def query_card(query: str, known: Records, folder: str | Path, ranking: Ranking | None = None) -> str:
    """Pictures, question and all responses in the order of their rank, with mean scores and reasons."""
    order, answers = ranking or known.rankings[query]["panel"], []
    for rank, name in sorted(zip(order.ranks, order.responses, strict=True)):
        notes, critique = [_scores(known.judgements.get(name, []))], known.critiques.get(name)
        notes += [f"Why: {critique.reason}", f"In full: {critique.expanded}"] if critique else []
        answers.append((f"rank {rank}: {known.responses[name].responder}", known.responses[name].text, *notes))
    return answers_card(known.queries[query], answers, folder)


def answers_card(query: Query, answers: Iterable[tuple[str, ...]], folder: str | Path) -> str:
    """Pictures, question and answers, each as (heading, text, note, further notes)."""
    sides = [_side("", escape(text) or _NOTHING, [head, *notes]) for head, text, *notes in answers]
    return _card(query, folder, sides)


def page(cards: Iterable[str]) -> str:
    """Cards with their style, to be shown in a notebook or written to a file."""
    return STYLE + "".join(cards)


# ---------------------------------------------------------------- filters


def _disputed(pair: Pair, rankings: Mapping[str, Ranking]) -> bool:
    """Whether some annotator ranked the worse response of a pair above the better one."""
    for name, ranking in rankings.items():
        rank = dict(zip(ranking.responses, ranking.ranks, strict=True))
        if name != "panel" and rank.get(pair.chosen, 0) > rank.get(pair.rejected, inf):
            return True
    return False


def choose(
    pairs: Iterable[Pair], known: Records, n: int = 3, seed: int = 0, category: str = "", topic: str = "",
    dimension: str = "", margin: tuple[float, float] = (-inf, inf), annotator: str = "", disputed: bool = False,
) -> tuple[list[Pair], int]:  # fmt: skip
    """(a seeded sample of `n` pairs that pass every filter given, how many pass).

    `dimension` keeps pairs that differ most on that scale, `annotator` pairs whose query that person ranked, `disputed`
    pairs that some annotator orders the other way; `margin` is the smallest and the largest overall margin.
    """
    if dimension and dimension not in SCALES:
        raise ValueError(f"No dimension {dimension!r}. Give {', '.join(SCALES)}.")

    def passes(pair: Pair) -> bool:
        query, rankings = known.queries[pair.query], known.rankings.get(pair.query, {})
        gaps = {scale: abs(getattr(pair, scale)) for scale in SCALES}
        return (
            (not category or query.category == category)
            and (not topic or query.topic == topic)
            and (not dimension or gaps[dimension] == max(gaps.values()) > 0)
            and margin[0] <= pair.margin <= margin[1]
            and (not annotator or annotator in rankings)
            and (not disputed or _disputed(pair, rankings))
        )

    passing = [pair for pair in pairs if passes(pair)]
    return Random(f"choose {seed}").sample(passing, min(n, len(passing))), len(passing)
