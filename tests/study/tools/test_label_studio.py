"""Label Studio: what is exported and read back is exactly what was written."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import reward_world

from mmrlhf_study.annotation import campaign
from mmrlhf_study.annotation.records import SCALES, Judgement
from mmrlhf_study.miniworld import annotators, pool
from mmrlhf_study.tools import label_studio
from mmrlhf_study.tools.label_studio import LabelStudioError

RANKS = (3, 1)


@pytest.fixture(scope="module")
def made() -> tuple[list, list, list, list]:
    """Queries, two or three responses to each, judgements of two rounds, rankings of people."""
    queries = pool.draw_pool(6, 25)
    said = [one for number, query in enumerate(queries) for one in reward_world.answers(query, 2 + number % 2)]
    done = campaign.simulate(annotators.panel(12, 0), queries, said, 3, 2, 0.5, 0)
    ids = {one.id for one in said}
    judged = [one for one in done.judgements if one.response in ids]
    return queries, said, judged, [one for one in done.rankings if one.annotator != "panel"]


@pytest.fixture
def task(made) -> dict:
    """A task without work, as an export has it."""
    (one,) = label_studio.tasks(made[0][:1], [one for one in made[1] if one.query == made[0][0].id], str)
    return one | {"annotations": []}


def key(one: Judgement) -> tuple:
    return one.query, one.annotator, one.round, one.response


def tasks(made) -> list[dict]:
    queries, said, judged, ranked = made
    return json.loads(json.dumps(label_studio.tasks(queries, said, "/files/{}".format, judged, ranked)))


def exported(tasks: list[dict]) -> list[dict]:
    """What Label Studio's models keep of tasks that were imported by one user; the rest is lost."""
    return [
        {"id": n, "data": task["data"], "predictions": [], "meta": {}, "annotations": [
            {"id": m, "result": one["result"], "completed_by": 1, "lead_time": one["lead_time"], "was_cancelled": False}
            for m, one in enumerate(reversed(task["annotations"]))
        ]} for n, task in enumerate(tasks)
    ]  # fmt: skip


def work(ranks=RANKS, **change) -> dict:
    """The annotation of a person who filled in the form for two answers: second and third point on all scales."""
    results = []
    for k, rank in enumerate(ranks, 1):
        results += [
            {"id": "x", "from_name": f"{scale}{k}", "type": "choices", "value": {"choices": [labels[k]]}}
            for scale, labels in SCALES.items()
        ]
        results.append({"id": "y", "from_name": f"rank{k}", "type": "number", "value": {"number": rank}})
    return {"result": results, "completed_by": 7, "lead_time": 30.0} | change


def test_out_and_back_is_exact_with_what_an_export_keeps(made):
    found = label_studio.read(exported(tasks(made)))
    assert {one.round for one in found.judgements} == {0, 1}
    assert sorted(found.judgements, key=key) == sorted(made[2], key=key)
    assert sorted(map(repr, found.rankings)) == sorted(map(repr, made[3]))
    assert found.skipped == []


def test_tasks_are_blind_and_without_judgements_empty(made):
    found = label_studio.tasks(made[0], made[1], "/files/{}".format)
    by_id = {one.id: one.text for one in made[1]}
    assert all(not task["annotations"] for task in found)
    orders = set()
    for task, query in zip(found, made[0], strict=True):
        data = task["data"]
        shown = [data[f"answer{k}"] for k, _ in enumerate(data["responses"], 1)]
        assert shown == [by_id[name] for name in data["responses"]]
        assert data["pictures"] == [f"/files/{path}" for path in query.media]
        assert "r0" not in json.dumps({name: value for name, value in data.items() if name != "responses"})
        orders.add(tuple(name[-1] for name in data["responses"]))
    assert len(orders) > 2


def test_people_who_fill_in_the_form_are_read(task):
    found = label_studio.read([task | {"annotations": [work(), work(was_cancelled=True)]}])
    (one, two), (order,) = found.judgements, found.rankings
    assert (one.helpfulness, one.ethics, two.faithfulness) == (2, 2, 3)
    assert (one.annotator, one.seconds, one.reason, order.ranks, order.basis) == ("user 7", 15.0, "", (2, 1), "")
    found = label_studio.read([task | {"annotations": [work(completed_by={"id": 7, "email": "bea@x.org"})]}])
    assert found.rankings[0].annotator == "bea@x.org"
    assert found.skipped == []


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (work((1.5, 1)), "rank1"),
        (work(("1", 2)), "rank1"),
        (work((1, True)), "rank2"),
        (work((0, 1)), "rank1"),
        (work((1, float("nan"))), "rank2"),
        (work((1,)), "helpfulness2"),
        (work() | {"result": work()["result"][:-1]}, "rank2"),
        (work() | {"result": []}, "helpfulness1"),
    ],
)
def test_unfinished_work_is_named_and_everybody_elses_is_read(task, bad, named):
    found = label_studio.read([task | {"annotations": [bad | {"completed_by": 9}, work()]}])
    assert [one.annotator for one in found.rankings] == ["user 7"]
    assert len(found.judgements) == 2
    (skipped,) = found.skipped
    assert all(part in skipped for part in ("task 1", task["data"]["query"], "user 9", named))


@pytest.mark.parametrize("missing", ["annotations", "data"])
def test_an_export_of_another_form_is_one_sentence(task, missing):
    with pytest.raises(LabelStudioError, match=f"Task 2 .*{missing}"):
        label_studio.read([task, {name: value for name, value in task.items() if name != missing}])
    with pytest.raises(LabelStudioError, match="responses"):
        label_studio.read([{"data": {"text": "of another project"}, "annotations": [work()]}])


def test_the_configuration_is_xml_with_every_label():
    root = ElementTree.fromstring(label_studio.config(4))
    assert len({tag.get("name") for tag in root.iter() if tag.get("name")}) == 2 + 4 * (1 + 3 + 2) + 1
    for scale, labels in SCALES.items():
        for k in range(1, 5):
            assert [tag.get("value") for tag in root.find(f"Choices[@name='{scale}{k}']")] == list(labels)


def test_text_that_looks_like_markup_stays_text(made):
    queries, said, judged, ranked = made
    evil = [replace(one, reason='<b>"&\n') for one in judged]
    back = label_studio.read(json.loads(json.dumps(label_studio.tasks(queries, said, str, evil, ranked))))
    assert {one.reason for one in back.judgements} == {'<b>"&\n'}
