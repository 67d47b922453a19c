"""Models as judges of responses: a policy that checks claims against the picture, or any endpoint."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from mmrlhf_core.models import prompts
from mmrlhf_core.models.policy import Policy
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.rollout import endpoint, generate
from mmrlhf_core.rollout.endpoint import Answer, Endpoint, NoAnswer
from mmrlhf_study.annotation import wording
from mmrlhf_study.annotation.records import Judgement
from mmrlhf_study.miniworld import claims, truth


def by_checking(
    policy: Policy | None, asked: Sequence[Prompt], responses: Sequence[str], max_new_tokens: int = 144
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


@torch.inference_mode()
def next_words(policy: Policy, asked: Sequence[Prompt], words: Sequence[str], batch: int = 64) -> torch.Tensor:
    """log p of each word as the next one, among these words alone, for every prompt: [prompts, words].

    A word is known by its first token, and these have to differ.
    """
    ids = [policy.processor.tokenizer(word, add_special_tokens=False).input_ids[0] for word in words]
    if len(set(ids)) != len(ids):
        raise ValueError(f"Several of the words {', '.join(map(repr, words))} begin with the same token; give others.")
    found, order = {}, sorted(range(len(asked)), key=lambda i: (len(asked[i].clip), len(asked[i].text), i))
    for start in tqdm(range(0, len(order), batch), desc="judge", unit="batch"):
        chosen = order[start : start + batch]
        some = [asked[i] for i in chosen]
        seen = any(prompt.images or prompt.clip for prompt in some)
        logits = generate.prefill(policy, prompts.encode(policy.processor, some), seen).logits[:, ids]
        found |= zip(chosen, logits.double().log_softmax(-1).cpu(), strict=True)
    return torch.stack([found[i] for i in range(len(asked))])


def rate(policy: Policy, asked: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
    """The mean of the points 1 to 5 under what the policy would answer when asked how good each response is."""
    shown = [prompts.rating(policy.processor, *one) for one in zip(asked, responses, strict=True)]
    points = torch.tensor([float(word) for word in prompts.RATINGS], dtype=torch.double)
    return (next_words(policy, shown, prompts.RATINGS).exp() @ points).tolist()


def prefer(policy: Policy, asked: Sequence[Prompt], pairs: Sequence[tuple[str, str]]) -> list[int | None]:
    """Which of two responses the policy would name when asked which is better, 1 or 2; None when it has no opinion."""
    shown = [prompts.comparison(policy.processor, prompt, *both) for prompt, both in zip(asked, pairs, strict=True)]
    gaps = (first - second for first, second in next_words(policy, shown, prompts.PLACES).tolist())
    return [None if gap == 0 else 1 if gap > 0 else 2 for gap in gaps]


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
