"""One annotation campaign in MiniWorld from end to end: answer, judge, check, rank, repair ties, expand reasons.

Published files hold only the pairs of a campaign; `from_pairs` gives these the same form.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from mmrlhf_core.data import annotated, records, storage
from mmrlhf_core.data.records import Critique, Pair, Query, Ranking, Response
from mmrlhf_core.models import policy, prompts
from mmrlhf_core.rollout import generate
from mmrlhf_study.annotation import graph
from mmrlhf_study.annotation import pairs as pairing
from mmrlhf_study.annotation.records import Judgement
from mmrlhf_study.miniworld import annotators
from mmrlhf_study.miniworld.annotators import Annotator, Sheet

Sheets = dict[tuple[str, str], Sheet]  # by (query, annotator)


@dataclass(frozen=True)
class Campaign:
    """All records of a campaign."""

    queries: tuple[Query, ...]
    responses: tuple[Response, ...]
    judgements: tuple[Judgement, ...]
    rankings: tuple[Ranking, ...]  # the panel's first, then each annotator's
    critiques: tuple[Critique, ...]
    checked: int  # sheets that an expert checked
    returned: int  # of these, sheets that were annotated again

    @property
    def panel(self) -> list[Ranking]:
        return [ranking for ranking in self.rankings if ranking.annotator == "panel"]


def answer_all(
    queries: Sequence[Query], media: str | Path, responders: str, frames: int, max_new_tokens: int, seed: int,
    batch: int = 64,
) -> list[Response]:  # fmt: skip
    """One answer of each responder to each query, in the order of the queries.

    `responders` is a folder with `decoding.json`, which names the models in it and how each is sampled.
    """
    decoding = storage.read_json(f"{responders}/decoding.json")
    asked = [prompts.of_query(query, media, frames) for query in queries]
    names, answers = [query.id for query in queries], {}
    for number, (name, how) in enumerate(decoding.items()):
        settings = {"temperature": float(how["temperature"]), "top_p": float(how["top_p"])}
        sampled = settings | {"max_new_tokens": max_new_tokens, "seed": seed + number}
        texts = generate.sample(policy.load(f"{responders}/{name}"), asked, names, 1, batch=batch, desc=name, **sampled)
        for query, (text,) in zip(queries, texts, strict=True):
            answers[query.id, name] = Response(f"{query.id}/{name}", query.id, name, text, **sampled)
    return [answers[query, name] for query in names for name in decoding]


def by_query(responses: Iterable[Response]) -> dict[str, list[Response]]:
    """The responses to each query, in order."""
    groups = defaultdict(list)
    for response in responses:
        groups[response.query].append(response)
    return dict(groups)


def _repair(
    ranking: Ranking, query: Query, responses: Sequence[Response], sheets: Mapping[str, Sheet], seed: int
) -> tuple[Ranking, Response] | None:
    """A full tie with the response that breaks it; None for any other ranking, and where no response can break it."""
    if set(ranking.ranks) != {1}:
        return None
    good = fmean(one.overall for sheet in sheets.values() for one in sheet.judgements) >= annotators.GOOD
    text = annotators.mend(query, good, [one.text for one in responses], seed)
    if not text:
        return None
    added = Response(f"{query.id}/annotator", query.id, "annotator", text)
    return pairing.extended(ranking, added.id, "damaged" if good else "written"), added


def _critiques(sheets: Iterable[Sheet]) -> list[Critique]:
    """For each response of a query the reason of its typical judgement, in short and written out from the scene."""
    given: dict[str, list[tuple[Judgement, str]]] = defaultdict(list)
    for sheet in sheets:
        for one, expanded in zip(sheet.judgements, sheet.expanded, strict=True):
            given[one.response].append((one, expanded))
    critiques = []
    for response, rows in given.items():
        chosen = pairing.typical(judgement for judgement, _ in rows)
        expanded = next(text for judgement, text in rows if judgement is chosen)
        critiques.append(Critique(response, chosen.query, chosen.annotator, chosen.reason, expanded, "truth"))
    return critiques


def simulate(
    people: Sequence[Annotator], queries: Sequence[Query], responses: Sequence[Response], each: int, shared: int,
    check_share: float, seed: int,
) -> Campaign:  # fmt: skip
    """`each` annotators judge every response (all in `shared` queries); a share is checked, full ties are repaired."""
    by_id, answers = {query.id: query for query in queries}, by_query(responses)
    first = annotators.collect(people, queries, answers, each, shared, seed)
    again, experts = annotators.check(first, people, queries, answers, check_share, seed)
    final: dict[str, dict[str, Sheet]] = defaultdict(dict)
    for (query, name), sheet in (first | again).items():
        final[query][name] = sheet
    named = {person.name: person for person in people}
    panel, added, critiques, extra = [], [], [], []
    for query, sheets in final.items():
        ranking, late = pairing.panel([sheet.ranking for sheet in sheets.values()]), {}
        if repaired := _repair(ranking, by_id[query], answers[query], sheets, seed):
            ranking, response = repaired
            item = {name: sheet.judgements[0].item for name, sheet in sheets.items()}
            late = {n: annotators.annotate(named[n], by_id[query], [response], item[n], item[n], seed) for n in sheets}
            added.append(response)
            extra += late.values()
        panel.append(ranking)
        critiques += _critiques([*sheets.values(), *late.values()])
    handed_in = [*first.values(), *again.values(), *extra]
    return Campaign(
        tuple(queries),
        (*responses, *added),
        tuple(one for sheet in handed_in for one in sheet.judgements),
        (*panel, *(sheet.ranking for sheet in (*first.values(), *again.values()))),
        tuple(critiques),
        len(experts),
        len(again),
    )


def from_pairs(queries: Sequence[Query], responses: Sequence[Response], pairs: Sequence[Pair]) -> Campaign:
    """The campaign behind published pairs: each response's reason, and the order where the pairs form a ranking."""
    critiques: dict[str, Critique] = {}
    for pair in pairs:
        for name, reason in ((pair.chosen, pair.chosen_reason), (pair.rejected, pair.rejected_reason)):
            critiques.setdefault(name, Critique(name, pair.query, "published", reason))
    orders = [
        replace(one, annotator="panel") for group in annotated.by_query(pairs).values() if (one := graph.ranking(group))
    ]
    return Campaign(tuple(queries), tuple(responses), (), tuple(orders), tuple(critiques.values()), 0, 0)


def truth_scores(result: Campaign) -> dict[str, float]:
    """The true overall score of each response; empty unless the queries are of MiniWorld."""
    if any(query.source not in ("miniworld", "adversarial") for query in result.queries):
        return {}
    return {one.id: float(annotators.verdict(one.text, one.query.partition("~")[0]).score) for one in result.responses}


def write(folder: str | Path, result: Campaign, pairs: Sequence[Pair]) -> None:
    """Write all records of a campaign into one folder, whole or not at all."""
    kinds = {"queries": Query, "responses": Response, "judgements": Judgement, "rankings": Ranking}
    tables = {name: (getattr(result, name), kind) for name, kind in (kinds | {"critiques": Critique}).items()}
    with storage.writing(folder) as temporary:
        temporary.mkdir()
        for name, (rows, kind) in (tables | {"pairs": (pairs, Pair)}).items():
            records.write(temporary / f"{name}.parquet", rows, kind)
