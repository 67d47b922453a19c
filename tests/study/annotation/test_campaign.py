"""A whole campaign in a small pool: every tie that can be is repaired, files come back, the same seed repeats it."""

import annotation_world as world
import pytest

from mmrlhf_core.data import records, storage
from mmrlhf_core.data.records import Pair
from mmrlhf_study.annotation import campaign, pairs
from mmrlhf_study.miniworld import questions, truth


@pytest.fixture(scope="module")
def made() -> campaign.Campaign:
    return world.result()


def test_every_response_has_its_judgements_and_one_critique(made):
    times: dict[str, set] = {}
    for one in made.judgements:
        times.setdefault(one.response, set()).add(one.annotator)
    assert times.keys() == {one.id for one in made.responses} == {one.response for one in made.critiques}
    assert {len(names) for names in times.values()} == {4, 12}
    assert len(made.critiques) == len(made.responses)
    assert all(one.reason and one.expanded and one.writer == "truth" for one in made.critiques)
    assert 0 < made.returned < made.checked == round(0.2 * (100 * 4 + 20 * 12))


def test_ties_are_repaired_the_right_way_round(made):
    text = {one.id: one.text for one in made.responses}
    repaired = [one for one in made.panel if one.repair]
    assert repaired
    for ranking in repaired:
        one, new = questions.question(ranking.query), ranking.responses[-1]
        assert new == f"{ranking.query}/annotator"
        rank = dict(zip(ranking.responses, ranking.ranks, strict=True))
        assert rank[new] == (1 if ranking.repair == "written" else 2)
        assert (text[new] == one.answer) == (ranking.repair == "written")
    assert all(len(set(one.ranks)) > 1 or not one.repair for one in made.panel)


def test_pairs_mostly_agree_with_the_truth_and_never_pair_equal_texts(made):
    text = {one.id: one.text for one in made.responses}
    right = wrong = 0
    for pair in pairs.make(made.panel, made.judgements, made.critiques, text):
        assert text[pair.chosen] != text[pair.rejected]
        a, b = (truth.check(text[name], questions.question(pair.query)).score for name in (pair.chosen, pair.rejected))
        right, wrong = right + (a > b), wrong + (a < b)
    assert wrong < 0.1 * right


def test_the_same_seed_repeats_the_campaign_to_the_byte(made, tmp_path):
    found = pairs.make(made.panel, made.judgements, made.critiques, {one.id: one.text for one in made.responses})
    said = [one for query in world.QUERIES for one in world.answers(query)]
    campaign.write(tmp_path / "one", made, found)
    campaign.write(tmp_path / "two", world.run(said), found)
    assert storage.sha256_tree(tmp_path / "one") == storage.sha256_tree(tmp_path / "two")
    assert records.read(tmp_path / "one/pairs.parquet", Pair) == found
    assert world.run(said, seed=1) != made
