"""A small annotation campaign in MiniWorld, for the tests of annotation and of its chapter."""

from functools import cache
from random import Random

from mmrlhf_core.data.records import Query, Response
from mmrlhf_study.annotation import campaign
from mmrlhf_study.miniworld import annotators, pool, questions, truth

QUERIES = tuple(pool.draw_pool(9, 120))
STRICT = annotators.Annotator("ann-03", (-1.0, 0.0, 0.0), (0.3,) * 3, (0.9,) * 3)


def answers(query: Query, shares=(0.1, 0.5, 0.9)) -> list[Response]:
    """One response per model; each model is right with its own probability."""
    one, rows = questions.question(query.id), []
    for k, right in enumerate(shares):
        rng = Random(f"{query.id} {k}")
        text = one.answer if rng.random() < right else truth.corrupt(one, rng.choice(truth.corruptions(one)), k)
        rows.append(Response(f"{query.id}/{k}", query.id, f"model {k}", text))
    return rows


def run(responses: list[Response], seed: int = 0) -> campaign.Campaign:
    """Four annotators judge each response, all twelve judge 20 queries; the third one is strict about helpfulness."""
    people = list(annotators.panel(12, 1))
    people[2] = STRICT
    return campaign.simulate(people, QUERIES, responses, 4, 20, 0.2, seed)


@cache
def result() -> campaign.Campaign:
    return run([response for query in QUERIES for response in answers(query)])
