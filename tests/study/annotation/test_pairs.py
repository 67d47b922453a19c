"""From rankings to pairs and parts, by hand and as properties."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrlhf_core.data.records import Critique, Query, Ranking
from mmrlhf_study.annotation import pairs
from mmrlhf_study.annotation.records import Judgement

IDS = ("a", "b", "c", "d")


def ranked(*ranks: int, query: str = "q", who: str = "x", **more) -> Ranking:
    return Ranking(query, who, IDS[: len(ranks)], ranks, **more)


def judged(**overall: tuple[int, int, int]) -> list[Judgement]:
    return [Judgement("q", name, "x", *scores) for name, scores in overall.items()]


TEXTS = {name: f"text {name}" for name in IDS}
CRITIQUES = [Critique(name, "q", "x", f"why {name}") for name in IDS]
JUDGED = judged(a=(5, 5, 5), b=(4, 5, 5), c=(4, 3, 5), d=(1, 1, 4))


def made(ranking: Ranking, how: str = "all") -> set[tuple[str, str, int]]:
    return {(one.chosen, one.rejected, one.steps) for one in pairs.make([ranking], JUDGED, CRITIQUES, TEXTS, how)}


def test_the_panel_ranks_by_mean_rank_and_ties_stay_ties():
    # a: 1 1 2, b: 2 2 1, c: 2 2 3, d: 3 3 3 -> means 4/3, 5/3, 7/3, 3
    found = pairs.panel([ranked(1, 2, 2, 3), ranked(1, 2, 2, 3), ranked(2, 1, 3, 3)])
    assert (found.annotator, pairs.written_order(found)) == ("panel", "1>2>3>4")
    assert pairs.written_order(pairs.panel([ranked(1, 2), ranked(2, 1)])) == "1=2"
    thirds = [ranked(1, 2, 2), ranked(2, 1, 2), ranked(2, 2, 1)]
    assert pairs.written_order(pairs.panel(thirds)) == "1=2=3"
    with pytest.raises(ValueError, match="same responses"):
        pairs.panel([ranked(1, 2), ranked(1, 2, 3)])


def test_all_hardest_and_adjacent_pairs_by_hand():
    tied = ranked(1, 2, 2, 3)
    assert made(tied) == {("a", "b", 1), ("a", "c", 1), ("a", "d", 2), ("b", "d", 1), ("c", "d", 1)}
    assert made(tied, "hardest") == {("a", "d", 2)}
    assert made(tied, "adjacent") == made(tied) - {("a", "d", 2)}
    assert made(ranked(1, 1, 2, 2), "hardest") == {("a", "c", 1), ("a", "d", 1), ("b", "c", 1), ("b", "d", 1)}
    for how in pairs.PAIRINGS:
        assert made(ranked(1, 1, 1, 1), how) == set()
    with pytest.raises(ValueError, match="some"):
        made(tied, "some")


def test_an_order_is_written_as_in_the_paper():
    assert pairs.written_order(Ranking("q", "ann", ("a", "b", "c", "d"), (2, 1, 2, 3))) == "2>1=3>4"


def test_pairs_carry_reasons_margins_and_origin():
    more = [*JUDGED, Judgement("q", "b", "y", 2, 5, 5), replace(JUDGED[0], helpfulness=4, round=1)]
    (one,) = pairs.make([ranked(1, 2, repair="")], more, CRITIQUES, TEXTS)
    assert (one.chosen_reason, one.rejected_reason, one.origin) == ("why a", "why b", "ranked")
    assert (one.margin, one.helpfulness, one.faithfulness, one.ethics) == (1.0, 1.0, 0.0, 0.0)  # a: 4 of round 1; b: 3
    (one,) = pairs.make([ranked(1, 2, repair="written")], JUDGED, CRITIQUES, TEXTS)
    assert one.origin == "written"


def test_a_full_tie_is_repaired_from_above_or_below():
    tie = Ranking("q", "panel", ("a", "b"), (1, 1))
    assert pairs.written_order(pairs.extended(tie, "new", "written")) == "3>1=2"
    assert pairs.written_order(pairs.extended(tie, "new", "damaged")) == "1=2>3"
    for bad in ((ranked(1, 2), "written"), (tie, "")):
        with pytest.raises(ValueError, match="full tie"):
            pairs.extended(bad[0], "new", bad[1])


def test_the_typical_judgement_is_nearest_to_the_mean():
    rows = [Judgement("q", "a", name, h, 3, 5) for name, h in (("z", 5), ("y", 4), ("x", 1))]
    assert pairs.typical(rows).annotator == "y"
    assert pairs.typical([replace(row, helpfulness=3) for row in rows]).annotator == "x"


def test_counts_stand_beside_the_ceiling():
    queries = [Query(name, "?", "text", (), category) for name, category in (("q", "long"), ("p", "mcq"), ("o", "mcq"))]
    rankings = [ranked(1, 2, 2, 3), ranked(1, 1, query="p"), ranked(1, 2, 3, query="o")]
    found = pairs.counts(queries, rankings, pairs.make(rankings, JUDGED, CRITIQUES, TEXTS), TEXTS)
    assert found.loc["long"].tolist() == [1, 4, 4, 6, 5, 5 / 6]
    assert found.loc["mcq"].tolist() == [2, 5, 5, 4, 3, 3 / 4]
    assert found.loc["all"].tolist() == [3, 9, 9, 10, 8, 0.8]


def test_the_same_two_texts_make_one_pair():
    same = TEXTS | {"b": TEXTS["a"]}
    ranking = ranked(1, 1, 2, 3)
    found = pairs.make([ranking], JUDGED, CRITIQUES, same)
    assert [(one.chosen, one.rejected) for one in found] == [("a", "c"), ("a", "d"), ("c", "d")]
    row = pairs.counts([Query("q", "?", "text", (), "long")], [ranking], found, same).loc["long"]
    assert row.tolist() == [1, 4, 3, 3, 3, 1.0]


ranks = st.lists(st.integers(1, 4), min_size=2, max_size=4).map(
    lambda levels: tuple(sorted(set(levels)).index(level) + 1 for level in levels)
)


@given(ranks=ranks)
def test_pairs_are_exactly_those_of_different_rank(ranks):
    ranking = ranked(*ranks)
    k = len(ranks)
    everything = made(ranking)
    assert len(everything) == sum(ranks[i] != ranks[j] for i in range(k) for j in range(i))
    assert all(ranks[IDS.index(a)] < ranks[IDS.index(b)] for a, b, _ in everything)
    assert made(ranking, "hardest") <= everything
    assert made(ranking, "adjacent") <= everything
    assert bool(made(ranking, "hardest")) == bool(everything) == (len(set(ranks)) > 1)


@st.composite
def pools(draw: st.DrawFn) -> list[Query]:
    rows = []
    for number in range(draw(st.integers(1, 30))):
        media = tuple(draw(st.lists(st.sampled_from("abcdefghijklm"), min_size=1, max_size=2, unique=True)))
        plant = draw(st.sampled_from(["", *(row.id for row in rows)]))
        group = draw(st.sampled_from(["", "g1", "g2", "g3"])) if number % 4 == 0 else ""
        rows.append(Query(f"q{number}", "?", "images" if len(media) > 1 else "image", media, group=group, plant=plant))
    return draw(st.permutations(rows))


@settings(max_examples=80, deadline=None)
@given(queries=pools(), seed=st.integers(0, 99))
def test_no_picture_group_or_twin_crosses_parts(queries, seed):
    part = pairs.split(queries, 0.2, 0.2, seed)
    assert part.keys() == {query.id for query in queries}
    for one in queries:
        for other in queries:
            near = (
                set(one.media) & set(other.media) or (one.group and one.group == other.group) or one.plant == other.id
            )
            if near:
                assert part[one.id] == part[other.id]
    for name in ("dev", "test"):
        assert list(part.values()).count(name) <= 0.2 * len(queries)
    assert part == pairs.split(queries[::-1], 0.2, 0.2, seed)


def test_parts_are_filled_and_depend_on_the_seed():
    queries = [Query(f"q{n}", "?", "image", (f"{n // 2}.png",)) for n in range(400)]
    part = pairs.split(queries, 0.1, 0.1, 0)
    assert [list(part.values()).count(name) for name in ("train", "dev", "test")] == [320, 40, 40]
    assert part != pairs.split(queries, 0.1, 0.1, 1)
    for shares in ((0.5, 0.5), (-0.1, 0.1)):
        with pytest.raises(ValueError, match="train"):
            pairs.split(queries, *shares, 0)
