"""The form's Python side: blind, resumable, and everything that comes in is checked before it is written."""

import json
from pathlib import Path

import pytest
from PIL import Image

from mmrlhf_core.data.records import Query, Response
from mmrlhf_study.tools import journal

widget = pytest.importorskip("mmrlhf_study.tools.widget", reason="needs the extra annotate")

QUERIES = [Query(f"q{n}", f"what {n} ?", "image", ("a.png",)) for n in range(3)]
RESPONSES = [Response(f"{q.id}/{k}", q.id, f"secret{k}", f"text {k} <b>") for q in QUERIES for k in range(3)]


class Form:
    """A widget without a browser: what it sends is kept, what a browser would send is given to it."""

    def __init__(self, folder: Path, who: str = "bea") -> None:
        self.one = widget.AnnotationWidget(folder / "journal.jsonl", who, QUERIES, RESPONSES, folder)
        self.sent: list[dict] = []
        self.one.send = lambda content, buffers=None: self.sent.append(content)

    def save(self, ranks=(1, 1, 3), **change) -> str:
        row = {"helpfulness": 5, "faithfulness": 4, "ethics": 3, "reason": "why <i>"} | change
        rows = [row | {"rank": rank} for rank in ranks]
        message = {"kind": "save", "token": self.one.item["token"], "rows": rows, "basis": "so", "seconds": 30.04}
        self.one._received(self.one, json.loads(json.dumps(message)), [])
        return self.sent[-1]["problem"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    return tmp_path


def test_what_the_form_shows_names_no_model_and_differs_between_people(folder):
    form, other = Form(folder), Form(folder, "al")
    item = form.one.item
    assert "secret" not in json.dumps(item)
    assert "q0/" not in json.dumps(item["responses"])
    assert sorted(item["responses"]) == [f"text {k} <b>" for k in range(3)]
    assert item["media"][0].startswith("data:image/png;base64,")
    orders = {tuple(Form(folder, f"p{n}").one.item["responses"]) for n in range(12)}
    assert len(orders) > 2
    assert other.one.item["query"] == "q0"


def test_saved_work_is_in_the_journal_in_the_order_shown(folder):
    form = Form(folder)
    shown = list(form.one.item["responses"])
    assert form.save() == ""
    judged, (order,) = journal.read(folder / "journal.jsonl")
    assert order.ranks == (1, 1, 2)
    assert order.basis == "so"
    texts = {one.id: one.text for one in RESPONSES}
    assert [texts[one.response] for one in judged] == [texts[name] for name in order.responses] == shown
    assert [(one.helpfulness, one.faithfulness, one.ethics) for one in judged] == [(5, 4, 3)] * 3
    assert [(one.place, one.item, one.seconds) for one in judged] == [(k, 1, 10.0) for k in (1, 2, 3)]
    assert (form.one.item["query"], form.one.item["done"]) == ("q1", 1)


def test_a_second_tab_goes_on_and_the_same_query_counts_once(folder):
    one, two = Form(folder), Form(folder)
    assert one.save() == two.save((3, 2, 1)) == ""
    assert "another tab" in two.one.item["note"]
    assert len(journal.read(folder / "journal.jsonl")[1]) == 1
    assert two.save() == one.save() == ""
    assert Form(folder).one.item["query"] == "q2"
    assert Form(folder).save() == ""
    assert Form(folder).one.item["query"] == ""
    assert journal.done(folder / "journal.jsonl", "bea") == {"q0", "q1", "q2"}


@pytest.mark.parametrize(
    "change",
    [{"helpfulness": 0}, {"ethics": 6}, {"ethics": "5"}, {"reason": None}, {"ranks": (1, 2)}, {"ranks": (1, 2, "x")}],
)
def test_work_that_is_not_whole_is_told_and_not_written(folder, change):
    form = Form(folder)
    assert form.save(**change) != ""
    assert form.one.item["query"] == "q0"
    assert journal.read(folder / "journal.jsonl") == ([], [])
    assert form.save() == ""


def test_an_answer_for_another_query_is_refused(folder):
    form = Form(folder)
    form.one._received(form.one, {"kind": "save", "token": "bea q2", "rows": []}, [])
    assert "no longer the one shown" in form.sent[-1]["problem"]
    form.one._received(form.one, {"kind": "other"}, [])
    assert len(form.sent) == 1
