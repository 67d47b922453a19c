"""Models as judges of responses: a policy that checks claims against the picture, or any endpoint."""

from collections.abc import Sequence
from pathlib import Path

from mmrlhf_core.annotation import wording
from mmrlhf_core.inference import endpoint, generate
from mmrlhf_core.inference.endpoint import Answer, Endpoint, NoAnswer
from mmrlhf_core.miniworld import claims, truth
from mmrlhf_core.models.policy import Policy
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.records import Judgement


def by_checking(
    policy: Policy | None, asked: Sequence[Prompt], responses: Sequence[str], max_new_tokens: int = 96
) -> list[float]:
    """Share of the claims of each response that the policy calls right when it is asked to check them, greedily.

    A response that claims nothing gets 0; where none does, no policy is needed. `asked` holds the prompt of each
    response's query, for its pictures.
    """
    said = [" ".join(f"{claim} ." for claim in claims.read(text)) for text in responses]
    work = {}
    for prompt, text in zip(asked, said, strict=True):
        if text:
            work[id(prompt), text] = Prompt(f"check : {text}", prompt.images, prompt.clip)
    names = [str(number) for number in range(len(work))]
    limit = {"max_new_tokens": max_new_tokens, "desc": "judge"}
    replies = generate.sample(policy, list(work.values()), names, **limit) if work else []
    found = {key: truth.verdicts(reply[0]) for key, reply in zip(work, replies, strict=True)}
    scores = []
    for prompt, text in zip(asked, said, strict=True):
        words = found.get((id(prompt), text), ())
        scores.append(words.count("right") / len(words) if words else 0.0)
    return scores


def by_endpoint(
    place: Endpoint,
    question: str,
    pictures: Sequence[str | Path],
    query: str,
    responses: Sequence[tuple[str, str]],
    cache: str | Path,
) -> tuple[list[Judgement], tuple[int, ...]]:
    """An endpoint's judgements and ranks of the responses (id, text) to one query; NoAnswer when it gives none."""
    text = wording.judging(question, [text for _, text in responses])
    answer = endpoint.ask(place, endpoint.user(text, pictures), cache)
    try:
        return wording.judged(answer.text, query, [name for name, _ in responses], place.model)
    except ValueError as error:
        raise NoAnswer(str(error)) from None


def expand(place: Endpoint, comments: Sequence[tuple[str, str, str]], cache: str | Path) -> list[Answer | NoAnswer]:
    """Reasons written out in full by an endpoint, from (question, answer, comment) of each."""
    return endpoint.ask_all(place, [endpoint.user(wording.expansion(*one)) for one in comments], cache)
