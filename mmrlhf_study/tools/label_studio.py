"""Annotation by a team in Label Studio: its configuration, tasks to import, and its export read back.

One task is one query with its responses in a blind order; one annotation is one person's work on it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Any
from xml.sax.saxutils import quoteattr

from mmrlhf_core.data.records import Query, Ranking, Response
from mmrlhf_study.annotation.records import SCALES, Judgement


class LabelStudioError(ValueError):
    """An export holds something that is no annotation of these tasks."""


def config(responses: int) -> str:
    """The labelling configuration for queries with up to this many responses; pictures and frames are pages."""
    lines = [
        "<View>",
        '  <Image name="pictures" valueList="$pictures"/>',
        '  <Text name="question" value="$question"/>',
    ]
    for k in range(1, responses + 1):
        lines += [f'  <Header value="Answer {k}"/>', f'  <Text name="answer{k}" value="$answer{k}"/>']
        for scale, labels in SCALES.items():
            lines += [f'  <Header size="6" value={quoteattr(scale)}/>']
            lines += [f'  <Choices name="{scale}{k}" toName="answer{k}" choice="single-radio" showInline="true">']
            lines += [f'    <Choice value={quoteattr(label)} hotkey="{i}"/>' for i, label in enumerate(labels, 1)]
            lines += ["  </Choices>"]
        lines += [f'  <TextArea name="reason{k}" toName="answer{k}" placeholder="Why?" maxSubmissions="1"/>']
        lines += [f'  <Number name="rank{k}" toName="answer{k}" min="1" max="{responses}"/>']
    lines += [
        '  <TextArea name="basis" toName="question" placeholder="Why this order?" maxSubmissions="1"/>',
        "</View>",
    ]
    return "\n".join(lines) + "\n"


def _order(query: str, count: int) -> list[int]:
    """The blind order in which the responses to a query stand in its task."""
    order = list(range(count))
    Random(f"label studio {query}").shuffle(order)
    return order


def _result(control: str, target: str, kind: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"id": control, "from_name": control, "to_name": target, "type": kind, "value": value}


def _annotation(ids: Sequence[str], judgements: Mapping[str, Judgement], ranking: Ranking) -> dict[str, Any]:
    """One person's work as Label Studio stores it; what its form has no field for goes into `meta`."""
    rank, results = dict(zip(ranking.responses, ranking.ranks, strict=True)), []
    for k, name in enumerate(ids, 1):
        one, target = judgements[name], f"answer{k}"
        for scale, labels in SCALES.items():
            choice = {"choices": [labels[getattr(one, scale) - 1]]}
            results.append(_result(f"{scale}{k}", target, "choices", choice))
        if one.reason:
            results.append(_result(f"reason{k}", target, "textarea", {"text": [one.reason]}))
        results.append(_result(f"rank{k}", target, "number", {"number": rank[name]}))
    if ranking.basis:
        results.append(_result("basis", "question", "textarea", {"text": [ranking.basis]}))
    kept = {name: [one.seconds, one.place, one.item, one.round] for name, one in judgements.items()}
    meta = {
        "mm_rlhf": {"judgements": kept, "order": list(ranking.responses), "ranking": [ranking.repair, ranking.round]}
    }
    person = {"email": ranking.annotator}
    spent = sum(one.seconds for one in judgements.values())
    return {"result": results, "completed_by": person, "lead_time": spent, "was_cancelled": False, "meta": meta}


def tasks(
    queries: Iterable[Query],
    responses: Iterable[Response],
    address: Callable[[str], str],
    judgements: Iterable[Judgement] = (),
    rankings: Iterable[Ranking] = (),
) -> list[dict[str, Any]]:
    """Tasks to import, with annotations where there are some already; `address` makes a URL of a media path."""
    said, judged, ranked = defaultdict(list), defaultdict(dict), defaultdict(list)
    for response in responses:
        said[response.query].append(response)
    for one in judgements:
        judged[one.query, one.annotator, one.round][one.response] = one
    for ranking in rankings:
        ranked[ranking.query].append(ranking)
    made, most = [], max(map(len, said.values()))
    for query in queries:
        shown = [said[query.id][i] for i in _order(query.id, len(said[query.id]))]
        ids = [one.id for one in shown]
        data = {"query": query.id, "responses": ids, "question": query.prompt}
        data["pictures"] = [address(path) for path in query.media]
        data |= {f"answer{k}": "" for k in range(len(ids) + 1, most + 1)}  # the form has room for the longest list
        data |= {f"answer{k}": one.text for k, one in enumerate(shown, 1)}
        work = [_annotation(ids, judged[query.id, one.annotator, one.round], one) for one in ranked[query.id]]
        made.append({"data": data, "annotations": work})
    return made


def read(exported: Iterable[Mapping[str, Any]]) -> tuple[list[Judgement], list[Ranking]]:
    """The judgements and rankings in an export (JSON, not JSON-MIN); skipped annotations are left out."""
    judgements, rankings = [], []
    for number, task in enumerate(exported, 1):
        for annotation in task["annotations"]:
            if not annotation.get("was_cancelled"):
                try:
                    rows, ranking = _work(task["data"], annotation)
                except (KeyError, IndexError, TypeError, ValueError) as error:
                    raise LabelStudioError(
                        f"Task {number} of the export is not complete: {error}. Finish or skip it."
                    ) from None
                judgements += rows
                rankings.append(ranking)
    return judgements, rankings


def _person(annotation: Mapping[str, Any]) -> str:
    """The name of who annotated: an address where the export has one, a number otherwise."""
    who = annotation["completed_by"]
    return who["email"] if isinstance(who, dict) else f"user {who}"


def _work(data: Mapping[str, Any], annotation: Mapping[str, Any]) -> tuple[list[Judgement], Ranking]:
    """The records of one annotation; ranks such as 1, 1, 3 become 1, 1, 2."""
    values = {one["from_name"]: one["value"] for one in annotation["result"]}
    meta = (annotation.get("meta") or {}).get("mm_rlhf")
    ids, who, query = list(data["responses"]), _person(annotation), data["query"]
    spent = float(annotation.get("lead_time") or 0) / len(ids)
    rows, rank = {}, {}
    for k, name in enumerate(ids, 1):
        scores = [labels.index(values[f"{scale}{k}"]["choices"][0]) + 1 for scale, labels in SCALES.items()]
        reason = "\n".join(values.get(f"reason{k}", {"text": [""]})["text"])
        seconds, place, item, turn = meta["judgements"][name] if meta else (spent, k, 0, 0)
        rows[name] = Judgement(query, name, who, *scores, reason, float(seconds), place, item, turn)
        rank[name] = int(values[f"rank{k}"]["number"])
    order = meta["order"] if meta else ids
    levels, basis = sorted(set(rank.values())), "\n".join(values.get("basis", {"text": [""]})["text"])
    ranks = tuple(levels.index(rank[name]) + 1 for name in order)
    ranking = Ranking(query, who, tuple(order), ranks, basis, *(meta["ranking"] if meta else ()))
    return [rows[name] for name in order], ranking
