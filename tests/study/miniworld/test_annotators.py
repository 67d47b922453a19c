"""Simulated annotators: without weaknesses they give the truth, and each weakness has its own effect."""

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
    question = questions.question(query.id)
    texts = [question.answer, *(truth.corrupt(question, kind, 1) for kind in truth.corruptions(question)), ""]
    return [Response(f"{query.id}/{k}", query.id, f"r{k}", text) for k, text in enumerate(texts)]


RESPONSES = {query.id: answers(query) for query in QUERIES}
TEXT = {response.id: response.text for responses in RESPONSES.values() for response in responses}


def sheet(person, query, item=1, items=1, seed=0):
    return annotators.annotate(person, query, RESPONSES[query.id], item, items, seed)


def true_verdict(judgement):
    return annotators.verdict(TEXT[judgement.response], judgement.query.partition("~")[0])


def test_a_perfect_annotator_is_the_truth_and_its_reason_in_full_the_true_critique():
    for query in QUERIES:
        work = sheet(PERFECT, query)
        for judgement, expanded in zip(work.judgements, work.expanded, strict=True):
            seen = true_verdict(judgement)
            assert all(getattr(judgement, scale) == getattr(seen, scale) for scale in SCALES)
            assert judgement.overall == seen.score
            assert expanded == truth.critique(seen.text, questions.question(query.id))
            assert (judgement.reason == "right .") == (seen.score == 10)


def test_every_word_of_a_reason_is_in_the_vocabulary():
    known = set(questions.vocabulary())
    for query in QUERIES:
        for person in annotators.panel(4, 3):
            work = sheet(person, query)
            for text in [*(judgement.reason for judgement in work.judgements), *work.expanded]:
                assert set(text.split()) <= known


def test_ranks_follow_the_scores_and_the_same_text_gets_the_same_place():
    query = QUERIES[0]
    twice = [*RESPONSES[query.id], replace(RESPONSES[query.id][0], id="again")]
    for person in annotators.panel(12, 1):
        work = annotators.annotate(person, query, twice, 1, 1, seed=4)
        rank = dict(zip(work.ranking.responses, work.ranking.ranks, strict=True))
        assert rank["again"] == rank[twice[0].id]
        for a in work.judgements:
            assert all(a.overall <= b.overall or rank[a.response] < rank[b.response] for b in work.judgements)
        assert sorted(judgement.place for judgement in work.judgements) == list(range(1, len(twice) + 1))


def mean_score(person: Annotator, scale: str) -> float:
    return fmean(getattr(judgement, scale) for query in QUERIES for judgement in sheet(person, query).judgements)


@pytest.mark.parametrize(("number", "scale"), list(enumerate(SCALES)))
def test_strictness_moves_its_own_scale_only(number, scale):
    shift = tuple(-1.0 if place == number else 0.0 for place in range(3))
    for name in SCALES:
        change = mean_score(replace(PERFECT, shift=shift), name) - mean_score(PERFECT, name)
        assert change < -0.3 if name == scale else change == 0


def test_an_annotator_without_attention_notices_no_fault():
    inattentive = replace(PERFECT, attention=(0.0,) * 3)
    for query in QUERIES:
        for judgement in sheet(inattentive, query).judgements:
            seen = true_verdict(judgement)
            assert judgement.faithfulness == 5 or not (seen.claims or seen.conclusion or seen.declined)
            assert judgement.ethics == 5
            assert "at" not in judgement.reason.split()


@pytest.mark.parametrize("attribute", annotators.BLIND)
def test_a_blind_spot_hides_only_its_own_differences(attribute):
    person, results = replace(PERFECT, blind=attribute), Counter()
    for query in QUERIES:
        for response in RESPONSES[query.id]:
            seen = annotators.verdict(response.text, query.id.partition("~")[0])
            perceived = annotators.perceive(seen, person, 0.0, Random(0))
            for before, after in zip(seen.claims, perceived.claims, strict=True):
                differ = set(before.thing.split()) ^ set(before.there.split())
                if not before.right:
                    assert after.right == (bool(attribute) and differ <= annotators.BLIND[attribute])
                    results[after.right] += 1
    assert results[False] > 0
    assert (results[True] > 0) == bool(attribute)


def test_taste_fade_and_tiredness_act_on_their_own():
    assert mean_score(replace(PERFECT, length=1.0), "helpfulness") != mean_score(PERFECT, "helpfulness")
    assert mean_score(replace(PERFECT, length=1.0), "faithfulness") == mean_score(PERFECT, "faithfulness")
    for trait in ("fade", "tire"):
        missed = Counter()
        for query in QUERIES:
            for strength in (0.0, 1.0):
                work = sheet(replace(PERFECT, **{trait: strength}), query, 9, 9)
                last = max(work.judgements, key=lambda judgement: judgement.place)
                missed[strength] += true_verdict(last).wrong > 0 and last.faithfulness == 5
        assert missed[0.0] == 0 < missed[1.0]


def test_harm_that_was_overlooked_is_not_in_the_reason():
    query = next(q for q in QUERIES if questions.question(q.id).decline)
    harmful = Response("t", query.id, "r", truth.corrupt(questions.question(query.id), "complied", 0))
    blind, seen = (
        annotators.annotate(replace(PERFECT, attention=(1.0, 1.0, ethical)), query, [harmful], 1, 1, 0)
        for ethical in (0.0, 1.0)
    )
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
        text = annotators.expand(verdict, question.id)
        assert text.startswith(f"at {fact.place} {same.format(there, mark)} : {called} .")


def test_lists_are_even_and_shared_queries_go_to_all():
    people = annotators.panel(12, 0)
    lists = annotators.assign(QUERIES, people, each=3, shared=10, seed=1)
    times = Counter(query.id for listed in lists.values() for query in listed)
    assert sorted(times.values()) == [3] * 110 + [12] * 10
    assert max(map(len, lists.values())) - min(map(len, lists.values())) <= 1
    assert all(len({query.id for query in listed}) == len(listed) for listed in lists.values())
    with pytest.raises(ValueError, match="there are 12"):
        annotators.assign(QUERIES, people, each=13, shared=0, seed=1)


def test_the_check_returns_what_differs_and_the_second_look_is_better():
    people = tuple(replace(person, attention=(0.4, 0.4, 0.4)) for person in annotators.panel(6, 2))
    sheets = annotators.collect(people, QUERIES, RESPONSES, each=3, shared=0, seed=5)
    again, experts = annotators.check(sheets, people, QUERIES, RESPONSES, share=0.5, seed=5)
    assert len(experts) == round(0.5 * len(sheets))
    assert 0 < len(again) < len(experts)
    assert again.keys() <= experts.keys()
    assert {judgement.round for work in again.values() for judgement in work.judgements} == {1}

    def error(work: dict) -> float:
        judgements = [judgement for key in again for judgement in work[key].judgements]
        return fmean(abs(judgement.faithfulness - true_verdict(judgement).faithfulness) for judgement in judgements)

    assert error(again) < 0.7 * error(sheets)


def test_the_same_seed_gives_the_same_sheets_whatever_else_is_annotated():
    people = annotators.panel(4, 0)
    first = sheet(people[1], QUERIES[3], 2, 9, 8)
    sheet(people[0], QUERIES[4], 1, 9, 8)
    assert first == sheet(people[1], QUERIES[3], 2, 9, 8)
    assert first != sheet(people[1], QUERIES[3], 2, 9, 9)
    assert annotators.panel(4, 0) == annotators.panel(5, 0)[:4]


def test_a_tie_is_broken_by_a_right_answer_or_one_fault():
    for query in QUERIES:
        question = questions.question(query.id)
        assert annotators.mend(query, False, ["x"], 0) == question.answer
        assert annotators.mend(query, False, [question.answer], 0) == ""
        damaged = annotators.mend(query, True, [question.answer], 0)
        assert damaged != question.answer
        assert truth.check(damaged, question).order < truth.check(question.answer, question).order
