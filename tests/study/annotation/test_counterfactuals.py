"""Controls that change one thing of annotated queries only, and their counts."""

from dataclasses import replace

import reward_world as world

from mmrlhf_core.data import annotated
from mmrlhf_core.data.records import Pair, Query
from mmrlhf_study.annotation import campaign, counterfactuals
from mmrlhf_study.annotation.pairs import clusters
from mmrlhf_study.evaluation import reward_study


def test_what_a_campaign_wrote_comes_back_whole(tmp_path):
    found, pairs = world.made()
    campaign.write(tmp_path / "annotations", found, pairs)
    data = annotated.read(tmp_path / "annotations")
    assert data == world.data()
    made = counterfactuals.counts(data)
    assert list(made.index) == ["train", "dev", "test"]
    assert made.queries.tolist() == [len(reward_study.part(data, name)) for name in made.index]
    assert (made.queries.sum(), made.pairs.sum()) == (len(data), len(pairs))
    assert made.ties.sum() == sum(len(one.ties) for one in data)


def test_coins_turn_about_half_of_the_pairs_and_nothing_else():
    one = annotated.Annotated(Query("q", "?", "text", ()), {}, {}, (Pair("q", "0", "1"), Pair("q", "0", "2")))
    many = [replace(one, query=replace(one.query, id=f"q{n}")) for n in range(200)]
    turned = counterfactuals.coin_labels(many, 1)
    again = counterfactuals.coin_labels(many, 1)
    assert turned == again != counterfactuals.coin_labels(many, 2)
    moved = 0
    for before, after in zip(many, turned, strict=True):
        assert replace(after, pairs=before.pairs) == before
        for a, b in zip(before.pairs, after.pairs, strict=True):
            assert {a.chosen, a.rejected} == {b.chosen, b.rejected}
            moved += a.chosen != b.chosen
    assert 140 < moved < 260  # of 400


def test_other_pictures_are_of_the_same_kind_and_of_another_scene():
    data = world.data(40)
    moved, own = counterfactuals.other_pictures(data, 0), {one.query.id: one for one in data}
    home = {one.query.media: name for one, name in zip(data, clusters([o.query for o in data]).values(), strict=True)}

    def kind(query):
        return query.modality, query.media[0].partition("/")[0], query.modality == "images" and len(query.media)

    for one in moved:
        before = own[one.query.id]
        assert home[one.query.media] != home[before.query.media]
        assert kind(one.query) == kind(before.query)
        assert replace(one, query=before.query) == before
    left = [one.query for one in data if one.query.id not in {other.query.id for other in moved}]
    assert len(moved) > len(data) // 2
    for query in left:
        assert {home[one.query.media] for one in data if kind(one.query) == kind(query)} == {home[query.media]}
