"""A few annotated queries of MiniWorld with their pictures, and a tiny policy, for the tests of the reward model."""

from dataclasses import replace
from functools import cache
from random import Random

from mmrlhf_core.data import annotated
from mmrlhf_core.data.records import Response
from mmrlhf_study.annotation import campaign, pairs
from mmrlhf_study.miniworld import annotators, curriculum, miniature, pool, questions, truth

SIZE = miniature.Size(width=32, layers=1, heads=2, kv_heads=1, mlp=48, vision_width=32, vision_layers=1, vision_heads=2,
                      vision_mlp=48)  # fmt: skip


def answers(query, count=3):
    """The full answer, and others with one fault each."""
    one = questions.question(query.id)
    kinds = Random(query.id).choices(truth.corruptions(one), k=count - 1)
    texts = [one.answer, *(truth.corrupt(one, kind, k) for k, kind in enumerate(kinds))]
    return [Response(f"{query.id}/{k}", query.id, f"r{k}", text) for k, text in enumerate(texts)]


@cache
def made(count=12):
    """A campaign over `count` queries, and its pairs in three parts."""
    queries = pool.draw_pool(3, count)
    said = [one for query in queries for one in answers(query)]
    found = campaign.simulate(annotators.panel(12, 1), queries, said, 3, 2, 0.2, 5)
    texts = {one.id: one.text for one in found.responses}
    part = pairs.split(queries, 0.2, 0.2, 1)
    ordered = pairs.make(found.panel, found.judgements, found.critiques, texts)
    return found, [replace(one, split=part[one.query]) for one in ordered]


@cache
def data(count=12):
    """The same as annotated queries."""
    found, some = made(count)
    return annotated.gather(found.queries, found.responses, found.critiques, some, found.rankings)


def fresh(seed=0):
    """A policy of one layer that knows MiniWorld's words."""
    return miniature.create("llava_onevision", curriculum.words(), SIZE, seed)
