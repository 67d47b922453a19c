"""A ranked row keeps the texts that are in some pair, in the order in which the pairs name them."""

from mmrlhf_core.data.records import Query
from mmrlhf_core.training.dataset import RankedRow

QUERY = Query("q", "?", "image", ("a.png",))


def test_a_row_numbers_its_texts_in_the_order_of_the_pairs():
    texts = {"a": "A", "b": "B", "c": "C", "d": "D"}
    row = RankedRow.of(QUERY, texts, [("c", "a"), ("c", "d"), ("a", "d")], [0.5, 1.5, 1.0])
    assert (row.id, row.prompt, row.modality, row.media) == ("q", "?", "image", ("a.png",))
    assert (row.responses, row.winners, row.losers) == (("C", "A", "D"), (0, 0, 1), (1, 2, 2))
    assert row.margins == (0.5, 1.5, 1.0)


def test_without_pairs_the_first_text_stays():
    row = RankedRow.of(QUERY, dict(enumerate(["A", "B"])), [])
    assert (row.responses, row.winners, row.losers, row.margins) == (("A",), (), (), ())
