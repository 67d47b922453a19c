"""The answers of the model pool: each responder in turn answers every query with its own sampling settings."""

from collections.abc import Sequence
from pathlib import Path

from mmrlhf_core.data import storage
from mmrlhf_core.data.records import Query, Response
from mmrlhf_core.models import policy, prompts
from mmrlhf_core.rollout import generate


def answer_all(
    queries: Sequence[Query], media: str | Path, responders: str, frames: int, max_new_tokens: int, seed: int,
    batch: int = 64,
) -> list[Response]:  # fmt: skip
    """One answer of each responder to each query, in the order of the queries.

    `responders` is a folder with `decoding.json`, which names the models in it and how each is sampled.
    """
    decoding = storage.read_json(f"{responders}/decoding.json")
    asked = [prompts.of_query(query, media, frames) for query in queries]
    names, answers = [query.id for query in queries], {}
    for number, (name, how) in enumerate(decoding.items()):
        settings = {"temperature": float(how["temperature"]), "top_p": float(how["top_p"])}
        sampled = settings | {"max_new_tokens": max_new_tokens, "seed": seed + number}
        texts = generate.sample(policy.load(f"{responders}/{name}"), asked, names, 1, batch=batch, desc=name, **sampled)
        for query, (text,) in zip(queries, texts, strict=True):
            answers[query.id, name] = Response(f"{query.id}/{name}", query.id, name, text, **sampled)
    return [answers[query, name] for query in names for name in decoding]
