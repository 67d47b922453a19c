"""Annotation by a team in Label Studio: its configuration, tasks to import, and its export read back.

One task is one query with its responses in a blind order; one annotation is one person's work on it. Label Studio keeps
the `data` of a task and the `id` of a result, but no `meta` of an annotation, and it may replace the annotator by the
user who imported the tasks. What the form has no field for is therefore kept in `data`, and result ids refer to it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple
from xml.sax.saxutils import quoteattr

from mmrlhf_core.data.records import Query, Ranking, Response
from mmrlhf_study.annotation.pairs import dense_ranks
from mmrlhf_study.annotation.records import SCALES, Judgement


class LabelStudioError(ValueError):
    """An export is not the export of these tasks."""


class Export(NamedTuple):
    """What an export holds; `skipped` names each annotation that cannot be used, with the reason."""

    judgements: list[Judgement]
    rankings: list[Ranking]
    skipped: list[str]


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
    lines += ['  <TextArea name="basis" toName="question" placeholder="Why this order?" maxSubmissions="1"/>']
    return "\n".join([*lines, "</View>", ""])


# ---------------------------------------------------------------- out


def _annotation(
    number: int, ids: Sequence[str], judgements: Mapping[str, Judgement], ranking: Ranking
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(one person's work as Label Studio stores it, what its form has no field for); `number` connects the two."""
    rank, results = dict(zip(ranking.responses, ranking.ranks, strict=True)), []

    def add(control: str, target: str, kind: str, value: dict[str, Any]) -> None:
        place = {"id": f"{number}-{control}", "from_name": control, "to_name": target}
        results.append({**place, "type": kind, "value": value})

    for k, name in enumerate(ids, 1):
        judgement, target = judgements[name], f"answer{k}"
        for scale, labels in SCALES.items():
            add(f"{scale}{k}", target, "choices", {"choices": [labels[getattr(judgement, scale) - 1]]})
        if judgement.reason:
            add(f"reason{k}", target, "textarea", {"text": [judgement.reason]})
        add(f"rank{k}", target, "number", {"number": rank[name]})
    if ranking.basis:
        add("basis", "question", "textarea", {"text": [ranking.basis]})
    rows = {name: [row.seconds, row.place, row.item, row.round] for name, row in judgements.items()}
    kept = {"annotator": ranking.annotator, "judgements": rows, "order": list(ranking.responses)}
    kept["ranking"] = [ranking.repair, ranking.round]
    spent = sum(row.seconds for row in judgements.values())
    person = {"completed_by": {"email": ranking.annotator}, "lead_time": spent, "was_cancelled": False}
    return {"result": results, **person}, kept


def tasks(
    queries: Iterable[Query], responses: Iterable[Response], address: Callable[[str], str],
    judgements: Iterable[Judgement] = (), rankings: Iterable[Ranking] = (),
) -> list[dict[str, Any]]:  # fmt: skip
    """Tasks to import, with the annotations that exist already; `address` makes a URL of a media path."""
    answers, judged, ranked = defaultdict(list), defaultdict(dict), defaultdict(list)
    for response in responses:
        answers[response.query].append(response)
    for judgement in judgements:
        judged[judgement.query, judgement.annotator, judgement.round][judgement.response] = judgement
    for ranking in rankings:
        ranked[ranking.query].append(ranking)
    rows, most = [], max(map(len, answers.values()))
    for query in queries:
        shown = list(answers[query.id])
        Random(f"label studio {query.id}").shuffle(shown)
        ids = [response.id for response in shown]
        texts = [response.text for response in shown] + [""] * (most - len(shown))  # the form has `most` fields
        work = [
            _annotation(number, ids, judged[query.id, ranking.annotator, ranking.round], ranking)
            for number, ranking in enumerate(ranked[query.id])
        ]
        data = {"query": query.id, "responses": ids, "question": query.prompt}
        data |= {"pictures": [address(path) for path in query.media], "earlier": [kept for _, kept in work]}
        data |= {f"answer{k}": text for k, text in enumerate(texts, 1)}
        rows.append({"data": data, "annotations": [annotation for annotation, _ in work]})
    return rows


# ---------------------------------------------------------------- back


def read(exported: Iterable[Mapping[str, Any]]) -> Export:
    """The work in an export (JSON, not JSON-MIN); annotations that people skipped are left out."""
    result = Export([], [], [])
    for number, task in enumerate(exported, 1):
        try:
            data, annotations = task["data"], task["annotations"]
            ids, query = list(data["responses"]), data["query"]
        except (KeyError, TypeError) as error:
            raise LabelStudioError(
                f"Task {number} of the export has no {error}. Export these tasks as JSON (not JSON-MIN)."
            ) from None
        for annotation in annotations:
            if annotation.get("was_cancelled"):
                continue
            try:
                rows, ranking = _work(data, ids, annotation)
            except (KeyError, IndexError, TypeError, ValueError) as error:
                reason = f"no {error}" if isinstance(error, KeyError) else str(error)
                result.skipped.append(f"task {number} ({query}), work of {_person(annotation)}: {reason}")
                continue
            result.judgements.extend(rows)
            result.rankings.append(ranking)
    return result


def _person(annotation: Mapping[str, Any]) -> str:
    """The name of the annotator: an address where the export has one, a number otherwise."""
    who = annotation.get("completed_by")
    return (who.get("email") or f"user {who.get('id')}") if isinstance(who, dict) else f"user {who}"


def _earlier(data: Mapping[str, Any], annotation: Mapping[str, Any]) -> dict[str, Any] | None:
    """What `tasks` kept of this annotation; None for work that began in Label Studio."""
    for result in annotation["result"]:
        number, _, control = str(result.get("id")).partition("-")
        if control == result["from_name"] and number.isdecimal() and int(number) < len(data.get("earlier") or ()):
            return data["earlier"][int(number)]
    return None


def _rank(control: str, value: Any) -> int:
    """A rank, when it is a whole number from 1."""
    if type(value) not in (int, float) or not float(value).is_integer() or value < 1:
        raise ValueError(f"{control} is {value!r}; give a whole number from 1")
    return int(value)


def _work(
    data: Mapping[str, Any], ids: Sequence[str], annotation: Mapping[str, Any]
) -> tuple[list[Judgement], Ranking]:
    """The records of one annotation; ranks such as 1, 1, 3 become 1, 1, 2."""
    values = {result["from_name"]: result["value"] for result in annotation["result"]}
    kept, query, rows, rank = _earlier(data, annotation), data["query"], {}, {}
    who = kept["annotator"] if kept else _person(annotation)
    spent = float(annotation.get("lead_time") or 0) / len(ids)
    for k, name in enumerate(ids, 1):
        scores = [labels.index(values[f"{scale}{k}"]["choices"][0]) + 1 for scale, labels in SCALES.items()]
        reason = "\n".join(values.get(f"reason{k}", {"text": [""]})["text"])
        seconds, place, item, turn = kept["judgements"][name] if kept else (spent, k, 0, 0)
        rows[name] = Judgement(query, name, who, *scores, reason, float(seconds), place, item, turn)
        rank[name] = _rank(f"rank{k}", values[f"rank{k}"]["number"])
    order = kept["order"] if kept else ids
    basis = "\n".join(values.get("basis", {"text": [""]})["text"])
    ranks = dense_ranks([rank[name] for name in order])
    ranking = Ranking(query, who, tuple(order), ranks, basis, *(kept["ranking"] if kept else ()))
    return [rows[name] for name in order], ranking
