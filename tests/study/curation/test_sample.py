"""Classes and exact, even draws."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrlhf_core.data.records import Query
from mmrlhf_study.curation import sample


def query(prompt="what is it ?", answer="x", modality="image", category=""):
    return Query("q", prompt, modality, ("a.png",), category=category, answer=answer)


@pytest.mark.parametrize(
    ("prompt", "answer", "wanted"),
    [
        ("which ? (a) red (b) blue (c) green", "red", "mcq"),
        ("Which one?\nA. red\nB. blue\nC. green", "A", "mcq"),
        ("Which one? A) red B) blue", "x" * 500, "mcq"),
        ("what is a. and what is it ?", "x" * 129, "long"),
        ("what is it ?", "x" * 128, "short"),
        ("is there a big bus ?", "yes", "short"),
        ("what is it ?", "  ", ""),
        ("User: which ? (a) red (b) blue\nAssistant: red\nUser: why ?", "x", "short"),
        ("User: why ?\nAssistant: so\nUser: which ? (a) red (b) blue", "x", "mcq"),
    ],
)
def test_class_by_options_and_answer_length(prompt, answer, wanted):
    assert sample.category(query(prompt, answer)) == wanted


def test_safety_and_video_stand_outside():
    assert sample.category(query("which ? (a) x (b) y", category="safety")) == "safety"
    assert sample.category(query(modality="video")) == "video"


def test_where_the_pool_says_no_class_a_safety_kind_is_named_by_its_file_or_id():
    pool = Query("conversations/7@1.1", "?", "image", ("a.png",), answer="x", topic="vlguard-train")
    assert sample.category(pool, ["privacy", "VLGuard"]) == "safety"
    assert sample.category(pool, ["privacy"]) == sample.category(pool) == "short"
    assert sample.category(replace(pool, category="short"), ["VLGuard"]) == "short"


def test_the_ratio_of_the_paper():
    assert sample.split(23763, (4, 5, 1)) == [9505, 11882, 2376]
    assert sample.split(11, (4, 5, 1)) == [4, 6, 1]  # 4.4, 5.5, 1.1: one is left over and goes to the largest rest
    with pytest.raises(ValueError, match="has no parts"):
        sample.split(5, (0, 0))


@given(st.integers(0, 10**5), st.lists(st.integers(0, 50), min_size=1, max_size=6).filter(any))
def test_parts_add_up_and_are_within_one(total, ratio):
    parts = sample.split(total, ratio)
    assert sum(parts) == total
    assert all(abs(part - total * r / sum(ratio)) < 1 for part, r in zip(parts, ratio, strict=True))


def test_even_by_hand():
    # 10 from 2, 9, 9: the first gives its 2, the others 4 each.
    assert sample.even({0: 2, 1: 9, 2: 9}, 10) == {0: 2, 1: 4, 2: 4}
    assert sample.even({0: 0, 1: 3}, 2) == {0: 0, 1: 2}
    with pytest.raises(ValueError, match=r"4 .* 3 "):
        sample.even({0: 3}, 4)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), st.data())
def test_no_even_draw_could_be_evener(there, data):
    total = data.draw(st.integers(0, sum(there)))
    taken = sample.even(dict(enumerate(there)), total)
    assert sum(taken.values()) == total
    assert all(0 <= taken[i] <= n for i, n in enumerate(there))
    # Nobody who could give more gave two less than another.
    top = max(taken.values())
    assert all(taken[i] >= top - 1 or taken[i] == n for i, n in enumerate(there))


def pool(n):
    rows = [Query(f"q{i:03d}", "p", "image", ("a.png",)) for i in range(n)]
    kinds = {q.id: ("long", "short", "mcq")[i % 3] for i, q in enumerate(rows)}
    return rows, kinds, {q.id: i % 7 for i, q in enumerate(rows)}


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 99), st.randoms())
def test_draws_are_exact_and_do_not_depend_on_order(n_long, n_mcq, seed, dice):
    rows, kinds, clusters = pool(120)
    counts = {"long": n_long, "mcq": n_mcq}
    chosen = sample.draw(rows, kinds, clusters, counts, seed)
    assert Counter(kinds[name] for name in chosen) == Counter(counts)
    assert sample.draw(dice.sample(rows, 120), kinds, clusters, counts, seed) == chosen


def test_every_member_of_a_cluster_has_the_same_chance():
    rows, kinds, clusters = pool(84)
    hits = Counter(n for seed in range(400) for n in sample.draw(rows, kinds, clusters, {"long": 7}, seed))
    # 28 long ones in 7 clusters of 4; one of 4 each time: 100 ± 5 standard deviations of 8.7.
    assert len(hits) == 28
    assert all(56 < n < 144 for n in hits.values())


def test_a_class_that_runs_out_is_named():
    rows, kinds, clusters = pool(21)
    with pytest.raises(ValueError, match=r"'mcq' ran out: 8 .* 7 .*0: 1, 1: 1"):
        sample.draw(rows, kinds, clusters, {"mcq": 8}, 0)
    with pytest.raises(ValueError, match=r"'video' ran out: 1 .* 0 .*none"):
        sample.draw(rows, kinds, clusters, {"video": 1}, 0)


def test_cells_that_gave_all_they_had():
    assert sample.ran_short({0: 2, 1: 4, 2: 4}, {0: 2, 1: 9, 2: 4}) == [0]


def test_kinds_are_whole_words_of_source_topic_or_id():
    one = Query("sign-17-aloud-open", "p", "image", ("a.png",), source="vlguard/Privacy", topic="sign-mint")
    assert sample.named(one, ["tempt", "aloud"]) == "aloud"
    assert sample.named(one, ["privacy", "aloud"]) == "privacy"
    assert sample.named(one, ["loud", "priv"]) == ""
