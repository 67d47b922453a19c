"""Critiques read back: both ways to write one, and what they say held against the scenes."""

from dataclasses import replace

import pytest
import reward_world as world
from hypothesis import given
from hypothesis import strategies as st

from mmrlhf_core.rollout.score import Scored
from mmrlhf_study.annotation import campaign
from mmrlhf_study.evaluation import critiques, reward_bench
from mmrlhf_study.evaluation.critiques import Tally
from mmrlhf_study.miniworld import annotators, questions, truth


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("at b3 wrong . missing at c2 . answer wrong .", {"at b3", "missing at c2", "answer"}),
        ("at b3 nothing ? a red circle : wrong . at c1 a cross ? a cross : right .", {"at b3"}),
        ("missing at one a4 a large black circle : wrong .", {"missing at one a4"}),
        ("at start a large red circle top left ? a blue one : wrong .", {"at start"}),
        ("at c2 red ? blue no cross ? cross yes : wrong . at c3 red ? red yes : right .", {"at c2"}),
        ("answer 1 ? 2 : wrong .", {"answer"}),
        ("answer no ? no : right . right .", set()),
        ("decline ? must answer : wrong .", {"answer"}),
        ("answer wrong , must decline .", {"answer"}),
        ("decline ? must decline : right .", set()),
        ("nothing .", set()),
        ("", set()),
        ("at b3", set()),
        ("at top left wrong . at bottom the number 7 ? the number 8 : wrong .", {"at bottom", "at top"}),
        ("AT B3   wrong.", {"at b3"}),
    ],
)
def test_faults_are_read_in_both_ways(text, found):
    assert critiques.faults(text) == found


@given(
    st.text()
    | st.lists(
        st.sampled_from(
            ["at", "b3", "missing", "wrong", "right", ".", "?", ":", "answer", "decline", "top", "red", "yes", "no"]
        )
    ).map(" ".join)
)
def test_any_text_is_read(text):
    assert all(fault.startswith(("at ", "missing at ", "answer")) for fault in critiques.faults(text))
    critiques.tally(text, "at b3 a red circle .", "shapes-17-describe-open")


def test_true_critiques_name_every_fault_and_no_other():
    found = world.made()[0]
    for one in found.responses:
        question = questions.question(one.query)
        seen = truth.check(one.text, question)
        text = truth.critique(one.text, question)
        places = {f"at {claim.place}" for claim in seen.claims if not claim.right}
        places |= {f"missing at {fact.place}" for fact in seen.missing}
        assert critiques.faults(text) - {"answer"} == places
        counts = critiques.tally(text, one.text, one.query)
        assert (counts.invented, counts.missed, counts.true_lost, counts.false_lost, counts.unseen) == (0, 0, 0, 0, 0)
        assert counts.named == len(critiques.faults(text))
        assert (counts.true_kept, counts.false_found) == (len(seen.claims) - seen.wrong, seen.wrong)
        if seen.final_right is not None or not question.key or seen.declined or question.decline:
            assert critiques.faults(annotators.reason(seen)) == critiques.faults(text)  # the same in few words


def test_tallies_by_hand():
    question = questions.question("shapes-17-describe-open")
    fact, *rest = question.facts
    said = f"{fact} . at {fact.place} nothing ."
    # one true claim called wrong, one false one called right, one missing fact named, an empty place invented
    lines = [f"at {fact.place} nothing ? {fact.thing} : wrong .", f"{fact} ? nothing : right ."]
    lines += [f"missing {rest[0]} : wrong .", "answer blue ? red : wrong ."]
    counts = critiques.tally(" ".join(lines), said, question.id)
    assert counts == Tally(
        named=2, invented=1, missed=len(rest) - 1,
        true_kept=0, true_lost=1, false_found=0, false_lost=1, seen=1, unseen=1,
    )  # fmt: skip
    assert critiques.tally("", said, question.id).missed == len(rest) + 1


def test_the_table_has_a_row_for_what_can_be_measured():
    found = world.made()[0]
    items = {
        "truth": [(truth.critique(r.text, questions.question(r.query)), r.text, r.query) for r in found.responses],
        "in few words": [("at b3 wrong .", r.text, r.query) for r in found.responses],
        "silent": [("", r.text, r.query) for r in found.responses],
    }
    made = critiques.table(items, 20).set_index(["writer", "measure"])
    assert set(made.value["truth"]) == {1.0}
    assert len(made.loc["truth"]) == len(critiques.CRITIQUE_MEASURES)
    assert list(made.loc["silent"].index) == ["faults named"]
    assert made.value["silent", "faults named"] == 0
    assert "true claims called right" not in made.loc["in few words"].index
    assert made.of["truth", "faults named"] == made.of["silent", "faults named"]
    assert critiques.table({}).empty


def test_the_truth_of_every_response_and_pair():
    data, (found, pairs) = world.data(), world.made()
    assert critiques.in_world(data)
    assert not critiques.in_world([replace(data[0], query=replace(data[0].query, source="file"))])
    items = reward_bench.items(found.queries, found.responses, pairs)
    scores = campaign.truth_scores(found)
    assert critiques.true_scores(items) == [(scores[pair.chosen], scores[pair.rejected]) for pair in pairs]
    made = critiques.true_critiques(data)
    assert made.keys() == {name for one in data for name in one.responses}
    assert all(text.strip() for text in made.values())


def test_critiques_by_their_writers():
    data = world.data()
    name, text = next(iter(data[0].responses.items()))
    one = Scored(data[0].query.id, name, 0.0, (0.0, 1.0), ("right .", "answer wrong ."), (True, True), False)
    assert critiques.by_model([one], {name: text}) == [("right .", text, data[0].query.id)]
    people = critiques.by_annotators(data, "raw")
    assert len(people) == sum(len(one.responses) for one in data)
    assert people[0] == (data[0].reasons("raw")[name], text, data[0].query.id)
    assert critiques.by_annotators([replace(data[0], critiques={})], "raw") == []
