"""From pairs and margins to ranked rows: what they hold, what is refused, and β of every pair against the formula."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmrlhf_core.data import records
from mmrlhf_core.data.records import Pair, Query, RecordError, Response
from mmrlhf_core.rollout.score import Margin
from mmrlhf_study.chapters import ranked_rows

QUERIES = [Query("q", "is it red ?", "image", ("q.png",)), Query("p", "what ?", "text", ())]
RESPONSES = [Response(f"q/{n}", "q", "m", text) for n, text in enumerate(("yes", "no", "maybe", "unranked"))]
RESPONSES += [Response(f"p/{n}", "p", "m", text) for n, text in enumerate(("this", "that"))]
PAIRS = [
    Pair("q", "q/0", "q/1", steps=1, split="train"),
    Pair("q", "q/0", "q/2", steps=2, split="train"),
    Pair("q", "q/1", "q/2", steps=1, split="train"),
    Pair("p", "p/1", "p/0", split="test"),
]


def margins(model="m", **changed):
    scores = {"q/0": 2.0, "q/1": 0.5, "q/2": 1.0, "p/0": 0.0, "p/1": 0.25, **changed}
    return [Margin(p.query, p.chosen, p.rejected, scores[p.chosen], scores[p.rejected], model) for p in PAIRS]


def build(pairs=PAIRS, scored=None):
    return ranked_rows.build(QUERIES, RESPONSES, pairs, margins() if scored is None else scored)


def test_rows_hold_the_ranked_responses_their_pairs_and_margins():
    made = build()
    assert {part: len(rows) for part, rows in made.items()} == {"train": 1, "dev": 0, "test": 1}
    row = made["train"][0]
    assert row.responses == ("yes", "no", "maybe")
    assert list(zip(row.winners, row.losers, row.margins, strict=True)) == [(0, 1, 1.5), (0, 2, 1.0), (1, 2, -0.5)]
    assert (row.prompt, row.modality, row.media) == ("is it red ?", "image", ("q.png",))
    assert made["test"][0].margins == (0.25,)


def test_a_pair_without_a_margin_is_refused_and_named():
    with pytest.raises(
        ValueError, match=r"1 of 4 pairs have no margin, the first 'q/1' over 'q/2' of query 'q'\. Score"
    ):
        build(scored=[m for m in margins() if (m.chosen, m.rejected) != ("q/1", "q/2")])


def test_margins_of_two_models_are_refused():
    with pytest.raises(ValueError, match=r"come from 2 reward models \(a, b\)"):
        build(scored=[*margins("a")[:2], *margins("b")[2:]])


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_margin_that_is_no_finite_number_is_refused_when_made_and_when_read(tmp_path, value):
    with pytest.raises(RecordError, match=r"Margin\.r_w is (-?inf|nan); only finite numbers"):
        Margin("q", "q/0", "q/1", value, 0.0)
    records.write(tmp_path / "margins.parquet", margins())
    table = pq.read_table(tmp_path / "margins.parquet")
    wrong = pa.array([value, *table["r_w"].to_pylist()[1:]])
    place = table.schema.get_field_index("r_w")
    pq.write_table(table.set_column(place, table.schema.field(place), wrong), tmp_path / "margins.parquet")
    with pytest.raises(RecordError, match=r"margins\.parquet, row 1: Margin\.r_w is"):
        records.read(tmp_path / "margins.parquet", Margin)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (Pair("q", "q/0", "q/9", split="train"), "names 'q/9', which is not among the responses"),
        (Pair("q", "p/0", "q/1", split="train"), "names 'p/0', which is a response to 'p'"),
        (Pair("x", "q/0", "q/1", split="train"), "names query 'x', which is not among the queries"),
        (Pair("q", "q/0", "q/1"), "is in no part; give each one of train, dev, test"),
        (Pair("q", "q/2", "q/1", split="dev"), "are in dev, train; put them in one part"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(pair, message):
    scored = [*margins(), Margin(pair.query, pair.chosen, pair.rejected, 1.0, 0.0, "m")]
    with pytest.raises(RecordError, match=message):
        build([*PAIRS, pair], scored)
