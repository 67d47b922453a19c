"""Label Studio: out and back exactly, and its own validator agrees (where it is installed)."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from mmrlhf_core.data.records import Response
from mmrlhf_study.annotation import campaign
from mmrlhf_study.annotation.records import SCALES, Judgement
from mmrlhf_study.miniworld import annotators, pool, questions, truth
from mmrlhf_study.tools import label_studio
from mmrlhf_study.tools.label_studio import LabelStudioError


@pytest.fixture(scope="module")
def made() -> tuple[list, list, list, list]:
    queries, said = pool.draw_pool(6, 25), []
    for number, query in enumerate(queries):
        one = questions.question(query.id)
        texts = [one.answer, *(truth.corrupt(one, kind, 0) for kind in truth.corruptions(one))][: 2 + number % 2]
        said += [Response(f"{query.id}/{k}", query.id, f"r{k}", text) for k, text in enumerate(texts)]
    done = campaign.simulate(annotators.panel(12, 0), queries, said, 3, 2, 0.5, 0)
    ids = {one.id for one in said}
    judged = [one for one in done.judgements if one.response in ids]
    return queries, said, judged, [one for one in done.rankings if one.annotator != "panel"]


def key(one: Judgement) -> tuple:
    return one.query, one.annotator, one.round, one.response


def tasks(made) -> list[dict]:
    queries, said, judged, ranked = made
    return json.loads(json.dumps(label_studio.tasks(queries, said, "/files/{}".format, judged, ranked)))


def test_out_and_back_is_exact(made):
    judged, ranked = label_studio.read(tasks(made))
    assert {one.round for one in judged} == {0, 1}
    assert sorted(judged, key=key) == sorted(made[2], key=key)
    assert sorted(map(repr, ranked)) == sorted(map(repr, made[3]))


def test_tasks_are_blind_and_without_judgements_empty(made):
    found = label_studio.tasks(made[0], made[1], "/files/{}".format)
    by_id = {one.id: one.text for one in made[1]}
    assert all(not task["annotations"] for task in found)
    orders = set()
    for task, query in zip(found, made[0], strict=True):
        data = task["data"]
        assert [data[f"answer{k}"] for k, _ in enumerate(data["responses"], 1)] == [
            by_id[name] for name in data["responses"]
        ]
        assert data["pictures"] == [f"/files/{path}" for path in query.media]
        assert "r0" not in json.dumps({name: value for name, value in data.items() if name != "responses"})
        orders.add(tuple(name[-1] for name in data["responses"]))
    assert len(orders) > 2


def test_people_who_fill_in_the_form_are_read(made):
    (task,) = label_studio.tasks(made[0][:1], [one for one in made[1] if one.query == made[0][0].id], str)
    results = []
    for k, rank in ((1, 3), (2, 1)):
        for scale, labels in SCALES.items():
            results.append({"from_name": f"{scale}{k}", "type": "choices", "value": {"choices": [labels[k]]}})
        results.append({"from_name": f"rank{k}", "type": "number", "value": {"number": rank}})
    work = {"result": results, "completed_by": 7, "lead_time": 30.0}
    (one, two), (order,) = label_studio.read([task | {"annotations": [work, work | {"was_cancelled": True}]}])
    assert (one.helpfulness, one.ethics, two.faithfulness) == (2, 2, 3)
    assert (one.annotator, one.seconds, one.reason, order.ranks, order.basis) == ("user 7", 15.0, "", (2, 1), "")
    del results[-1]
    with pytest.raises(LabelStudioError, match="Task 1 of the export is not complete: 'rank2'"):
        label_studio.read([task | {"annotations": [work]}])


def test_the_configuration_is_xml_with_every_label():
    root = ElementTree.fromstring(label_studio.config(4))
    assert len({tag.get("name") for tag in root.iter() if tag.get("name")}) == 2 + 4 * (1 + 3 + 2) + 1
    for scale, labels in SCALES.items():
        for k in range(1, 5):
            assert [tag.get("value") for tag in root.find(f"Choices[@name='{scale}{k}']")] == list(labels)


def test_the_validator_of_label_studio_accepts_all_of_it(made):
    interface = pytest.importorskip("label_studio_sdk.label_interface").LabelInterface(label_studio.config(3))
    interface.validate()
    for task in tasks(made):
        assert interface.validate_task({"data": task["data"]})
        for one in task["annotations"]:
            assert interface.validate_annotation(one)
    one["result"][0]["value"]["choices"] = ["nonsense"]
    assert not interface.validate_annotation(one)


def test_text_that_looks_like_markup_stays_text(made):
    queries, said, judged, ranked = made
    evil = [replace(one, reason='<b>"&\n') for one in judged]
    back, _ = label_studio.read(json.loads(json.dumps(label_studio.tasks(queries, said, str, evil, ranked))))
    assert {one.reason for one in back} == {'<b>"&\n'}
