"""Ranked rows: what they hold, what is refused, and their way to the disk and into examples."""

import math
from dataclasses import replace

import pytest
import ranked_examples as tiny
import torch

from mmrlhf_core.data import records
from mmrlhf_core.data.records import Pair, Query, RecordError, Response
from mmrlhf_core.ranked.batch import build_tree
from mmrlhf_core.rollout.score import Margin
from mmrlhf_core.training import dataset
from mmrlhf_core.training.dataset import RankedExample, RankedRow, collate, tower_calls

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
    return dataset.ranked_rows(QUERIES, RESPONSES, pairs, margins() if scored is None else scored)


def test_rows_hold_the_ranked_responses_their_pairs_and_margins():
    made = build()
    assert {part: len(rows) for part, rows in made.items()} == {"train": 1, "dev": 0, "test": 1}
    row = made["train"][0]
    assert row.responses == ("yes", "no", "maybe")
    assert list(zip(row.winners, row.losers, row.margins, strict=True)) == [(0, 1, 1.5), (0, 2, 1.0), (1, 2, -0.5)]
    assert (row.prompt, row.modality, row.media) == ("is it red ?", "image", ("q.png",))
    assert made["test"][0].margins == (0.25,)


def test_a_pair_without_a_margin_is_refused_and_named():
    with pytest.raises(ValueError, match="'q/1' over 'q/2' of query 'q' has no margin"):
        build(scored=[m for m in margins() if (m.chosen, m.rejected) != ("q/1", "q/2")])


def test_margins_of_two_models_are_refused():
    with pytest.raises(ValueError, match=r"come from 2 reward models \(a, b\)"):
        build(scored=[*margins("a")[:2], *margins("b")[2:]])


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_margin_that_is_no_finite_number_is_refused(value):
    with pytest.raises(RecordError, match="r_w"):
        Margin("q", "q/0", "q/1", value, 0.0)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (Pair("q", "q/0", "q/9", split="train"), "q/9"),
        (Pair("q", "p/0", "q/1", split="train"), "a response to 'p'"),
        (Pair("x", "q/0", "q/1", split="train"), "query 'x'"),
        (Pair("q", "q/0", "q/1"), "no split"),
        (Pair("q", "q/2", "q/1", split="dev"), "dev, train"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(pair, message):
    scored = [*margins(), Margin(pair.query, pair.chosen, pair.rejected, 1.0, 0.0, "m")]
    with pytest.raises(RecordError, match=message):
        build([*PAIRS, pair], scored)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_margins_have_to_be_finite_numbers(value):
    one = tiny.examples(1)[0]
    with pytest.raises(ValueError, match="Query 'q0' has margins"):
        RankedExample("q0", one.query, torch.tensor([value]))
    with pytest.raises(ValueError, match="only finite numbers"):
        row(margins=(value,))


def test_one_margin_for_each_pair():
    one = tiny.examples(1)[0]
    with pytest.raises(ValueError, match="1 pairs and 2 margins"):
        RankedExample("q0", one.query, torch.tensor([1.0, 2.0]))
    with pytest.raises(ValueError, match="give one of each for a pair"):
        row(margins=(1.0, 2.0))


def row(**given):
    usual = {"id": "cat-7", "prompt": "?", "modality": "text", "media": (), "responses": ("a", "b")}
    return RankedRow(**{**usual, "winners": (0,), "losers": (1,), "margins": (), **given})


def test_a_pair_that_names_an_unknown_response_is_refused():
    with pytest.raises(ValueError, match="query 'cat-7' name response 2; there are 0 to 1"):
        row(losers=(2,))


def test_rows_survive_the_disk(tmp_path):
    rows = [row(), row(id="dog-1", margins=(0.25,))]
    records.write(tmp_path / "rows.parquet", rows)
    assert records.read(tmp_path / "rows.parquet", RankedRow) == rows


# batches


def test_pair_and_query_weights_by_hand():
    a, b = tiny.examples(2)  # one pair, three pairs
    batch = collate([a, b], "query")
    assert batch["weights"]["pair"].tolist() == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3])
    assert collate([a, b])["weights"]["pair"].tolist() == [1, 1, 1, 1]
    dropped = RankedExample("b", b.query, torch.tensor([-1.0, 2.0, 3.0]))
    assert collate([dropped], "pair", "drop")["weights"]["pair"].tolist() == [0, 1, 1]
    assert collate([dropped], "query", "drop")["weights"]["pair"].tolist() == [0, 0.5, 0.5]


def test_tower_calls_by_kind_of_media():
    a, b = (example.query for example in tiny.examples(2))
    text = replace(a, media={})
    short, long = (replace(a, media={"pixel_values_videos": torch.zeros(1, n, 3, 8, 8)}) for n in (2, 3))
    for queries, calls in (([a, b], 1), ([text], 0), ([text, a], 1), ([a, short], 2), ([short, long, short], 2)):
        assert tower_calls(build_tree(queries)) == calls
