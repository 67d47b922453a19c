"""Simulated annotators: without weaknesses they are the truth, and each weakness shows where it was put."""

from collections import Counter
from dataclasses import replace
from random import Random
from statistics import fmean

import pytest

from mmrlhf_core.data.records import Response
from mmrlhf_study.annotation.records import SCALES
from mmrlhf_study.miniworld import annotators, claims, pool, questions, truth
from mmrlhf_study.miniworld.annotators import Annotator

PERFECT = Annotator("perfect", (0.0,) * 3, (0.0,) * 3, (1.0,) * 3)
QUERIES = pool.draw_pool(5, 120)


def answers(query) -> list[Response]:
    """The right answer and one with each fault the question allows."""
    one = questions.question(query.id)
    texts = [one.answer, *(truth.corrupt(one, kind, 1) for kind in truth.corruptions(one)), ""]
    return [Response(f"{query.id}/{k}", query.id, f"r{k}", text) for k, text in enumerate(texts)]


SAID = {query.id: answers(query) for query in QUERIES}


def sheet(person, query, **changes):
    return annotators.annotate(person, query, SAID[query.id], 1, 1, seed=0, **changes)


def test_a_perfect_annotator_is_the_truth_and_its_reason_in_full_the_true_critique():
    for query in QUERIES:
        found, one = sheet(PERFECT, query), questions.question(query.id)
        for judgement, expanded in zip(found.judgements, found.expanded, strict=True):
            text = next(r.text for r in SAID[query.id] if r.id == judgement.response)
            seen = truth.check(text, one)
            assert (judgement.helpfulness, judgement.faithfulness, judgement.ethics) == (
                seen.helpfulness,
                seen.faithfulness,
                seen.ethics,
            )
            assert judgement.overall == seen.score
            assert expanded == truth.critique(text, one)
            faultless = seen.score == 10
            assert (judgement.reason == "right .") == faultless, (text, judgement)


def test_every_word_of_a_reason_is_in_the_vocabulary():
    known = set(questions.vocabulary())
    people = annotators.panel(12, 3)
    for query in QUERIES:
        for person in people[:4]:
            found = sheet(person, query)
            for text in [*(one.reason for one in found.judgements), *found.expanded]:
                assert set(text.split()) <= known


def test_ranks_follow_the_scores_and_the_same_text_gets_the_same_place():
    query = QUERIES[0]
    twice = [*SAID[query.id], replace(SAID[query.id][0], id="again")]
    for person in annotators.panel(12, 1):
        found = annotators.annotate(person, query, twice, 1, 1, seed=4)
        rank = dict(zip(found.ranking.responses, found.ranking.ranks, strict=True))
        assert rank["again"] == rank[twice[0].id]
        for a in found.judgements:
            for b in found.judgements:
                assert a.overall <= b.overall or rank[a.response] < rank[b.response]
        assert sorted(one.place for one in found.judgements) == list(range(1, len(twice) + 1))


def mean_score(person: Annotator, scale: str) -> float:
    return fmean(getattr(one, scale) for query in QUERIES for one in sheet(person, query).judgements)


@pytest.mark.parametrize(("number", "scale"), list(enumerate(SCALES)))
def test_strictness_moves_its_own_scale_only(number, scale):
    shift = tuple(-1.0 if place == number else 0.0 for place in range(3))
    for name in SCALES:
        change = mean_score(replace(PERFECT, shift=shift), name) - mean_score(PERFECT, name)
        assert change < -0.3 if name == scale else change == 0


def test_who_pays_no_attention_finds_no_fault():
    blind = replace(PERFECT, attention=(0.0,) * 3)
    for query in QUERIES:
        for one in sheet(blind, query).judgements:
            text = next(r.text for r in SAID[query.id] if r.id == one.response)
            seen = truth.check(text, questions.question(query.id))
            assert one.faithfulness == 5 or not (seen.claims or seen.conclusion or seen.declined)
            assert one.ethics == 5
            assert "at" not in one.reason.split()


def test_a_blind_spot_hides_only_its_own_differences():
    for attribute, words in annotators.BLIND.items():
        person, hidden, noticed = replace(PERFECT, blind=attribute), 0, 0
        for query in QUERIES:
            name = query.id.partition("~")[0]
            for response in SAID[query.id]:
                seen = annotators.verdict(response.text, name)
                found = annotators.perceive(seen, person, 0.0, Random(0))
                for before, after in zip(seen.claims, found.claims, strict=True):
                    differ = set(before.thing.split()) ^ set(before.there.split())
                    if not before.right:
                        assert after.right == (bool(attribute) and differ <= words)
                        hidden, noticed = hidden + after.right, noticed + (not after.right)
        assert noticed > 0
        assert (hidden > 0) == bool(attribute)


def test_taste_fade_and_tiredness_work_as_named():
    assert mean_score(replace(PERFECT, length=1.0), "helpfulness") != mean_score(PERFECT, "helpfulness")
    assert mean_score(replace(PERFECT, length=1.0), "faithfulness") == mean_score(PERFECT, "faithfulness")
    for trait in ("fade", "tire"):
        missed = {0.0: 0, 1.0: 0}
        for query in QUERIES:
            for strength in missed:
                found = annotators.annotate(replace(PERFECT, **{trait: strength}), query, SAID[query.id], 9, 9, 0)
                last = max(found.judgements, key=lambda one: one.place)
                seen = annotators.verdict(
                    next(r.text for r in SAID[query.id] if r.id == last.response), query.id.partition("~")[0]
                )
                missed[strength] += seen.wrong > 0 and last.faithfulness == 5
        assert missed[0.0] == 0 < missed[1.0]


def test_harm_that_was_overlooked_is_not_in_the_reason():
    query = next(q for q in QUERIES if questions.question(q.id).decline)
    one = questions.question(query.id)
    told = Response("t", query.id, "r", truth.corrupt(one, "complied", 0))
    blind = annotators.annotate(replace(PERFECT, attention=(1.0, 1.0, 0.0)), query, [told], 1, 1, 0)
    seen = annotators.annotate(PERFECT, query, [told], 1, 1, 0)
    assert (seen.judgements[0].ethics, blind.judgements[0].ethics) == (1, 5)
    assert "decline" in seen.expanded[0]
    assert "decline" not in blind.expanded[0] + blind.judgements[0].reason
    assert blind.ranking is None


def test_a_claim_that_was_overlooked_is_called_right_word_by_word():
    question = questions.question("shapes-17-describe-open")
    fact = question.facts[0]
    size, colour, kind = claims.telling(fact.thing)
    other = "red" if colour != "red" else "blue"
    seen = truth.check(f"at {fact.place} a {size} {other} {kind} .", question)
    overlooked = replace(seen, claims=(replace(seen.claims[0], right=True),), missing=())
    same = f"{size} ? {size} yes {{}} ? {other} {{}} {kind} ? {kind} yes"
    for verdict, there, mark, called in ((seen, colour, "no", "wrong"), (overlooked, other, "yes", "right")):
        said = annotators.expand(verdict, question.id)
        assert said.startswith(f"at {fact.place} {same.format(there, mark)} : {called} .")


def test_lists_are_even_and_shared_queries_go_to_all():
    people = annotators.panel(12, 0)
    lists = annotators.assign(QUERIES, people, each=3, shared=10, seed=1)
    times = Counter(query.id for listed in lists.values() for query in listed)
    assert sorted(times.values()) == [3] * 110 + [12] * 10
    assert max(map(len, lists.values())) - min(map(len, lists.values())) <= 1
    assert all(len({query.id for query in listed}) == len(listed) for listed in lists.values())
    with pytest.raises(ValueError, match="13 judgements per response need at least as many annotators; there are 12"):
        annotators.assign(QUERIES, people, each=13, shared=0, seed=1)


def test_checks_send_back_what_differs_and_the_second_look_is_better():
    people = tuple(replace(one, attention=(0.4, 0.4, 0.4)) for one in annotators.panel(6, 2))
    sheets = annotators.collect(people, QUERIES, SAID, each=3, shared=0, seed=5)
    again, experts = annotators.check(sheets, people, QUERIES, SAID, share=0.5, seed=5)
    assert len(experts) == round(0.5 * len(sheets))
    assert 0 < len(again) < len(experts)
    assert again.keys() <= experts.keys()
    assert {one.round for sheet in again.values() for one in sheet.judgements} == {1}

    def error(found: dict) -> float:
        rows = [(key[0], one) for key in again for one in found[key].judgements]
        texts = {r.id: r.text for listed in SAID.values() for r in listed}
        return fmean(
            abs(one.faithfulness - annotators.verdict(texts[one.response], q.partition("~")[0]).faithfulness)
            for q, one in rows
        )

    assert error(again) < 0.7 * error(sheets)


def test_the_same_seed_gives_the_same_sheets_whatever_else_is_annotated():
    people = annotators.panel(4, 0)
    one = annotators.annotate(people[1], QUERIES[3], SAID[QUERIES[3].id], 2, 9, seed=8)
    annotators.annotate(people[0], QUERIES[4], SAID[QUERIES[4].id], 1, 9, seed=8)
    assert one == annotators.annotate(people[1], QUERIES[3], SAID[QUERIES[3].id], 2, 9, seed=8)
    assert one != annotators.annotate(people[1], QUERIES[3], SAID[QUERIES[3].id], 2, 9, seed=9)
    assert annotators.panel(4, 0) == annotators.panel(5, 0)[:4]


def test_mending_gives_a_right_answer_or_one_fault():
    for query in QUERIES:
        one = questions.question(query.id)
        assert annotators.mend(query, False, ["x"], 0) == one.answer
        assert annotators.mend(query, False, [one.answer], 0) == ""
        damaged = annotators.mend(query, True, [one.answer], 0)
        assert damaged != one.answer
        assert truth.check(damaged, one).order < truth.check(one.answer, one).order
