"""Records gathered into annotated queries: nothing lost, nothing mixed up."""

import pytest

from mmrlhf_core.data import annotated, records
from mmrlhf_core.data.records import Critique, Pair, Query, Ranking, Response

IDS = ("q/0", "q/1", "q/2", "q/3")
GIVEN = {  # one query with four responses, of which three are tied and two say the same
    "queries": [Query("q", "?", "image", ("shapes/1.png",))],
    "responses": [Response(id_, "q", "r", text) for id_, text in zip(IDS, "abcb", strict=True)],
    "critiques": [Critique("q/0", "q", "ann", "good .", "")],
    "pairs": [Pair("q", "q/0", "q/1"), Pair("q", "q/0", "q/2")],
    "rankings": [Ranking("q", "panel", IDS, (1, 2, 2, 2)), Ranking("q", "ann", IDS, (1, 1, 1, 1))],
}


def small(**changes):
    return annotated.gather(**GIVEN | changes)


def test_what_is_written_comes_back_whole(tmp_path):
    for name, rows in GIVEN.items():
        records.write(tmp_path / f"{name}.parquet", rows)
    assert annotated.read(tmp_path) == small()


def test_ties_are_the_panels_and_between_different_texts():
    (one,) = small()
    assert one.ties == (("q/1", "q/2"), ("q/2", "q/3"))
    assert one.reasons("raw") == {"q/0": "good .", "q/1": "", "q/2": "", "q/3": ""}
    (alone,) = small(rankings=[])
    assert alone.ties == ()


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ValueError, match="q/9"):
        small(pairs=[Pair("q", "q/0", "q/9")])
    with pytest.raises(ValueError, match="parts"):
        small(pairs=[Pair("q", "q/0", "q/1", split="dev"), Pair("q", "q/0", "q/2", split="test")])
    with pytest.raises(ValueError, match="first 'x'"):
        small(pairs=[Pair("q", "q/0", "q/1"), Pair("x", "x/0", "x/1")])
    with pytest.raises(ValueError, match="full"):
        small()[0].reasons("full")
    assert small(pairs=[]) == []
