"""Models as judges of responses: a policy checks claims, scores or compares. And the prompt for full reasons."""

import re
from collections.abc import Sequence

import torch
from tqdm import tqdm

from mmrlhf_core.models import prompts
from mmrlhf_core.models.policy import Policy
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_core.rollout import generate
from mmrlhf_study.miniworld import claims, truth

EXPAND = """\
An expert looked at a question about a picture and at one answer to it, and left a short comment on the answer.
Write the comment out in full, as a professional and well-ordered assessment.

- Keep every strength and every weakness that the comment names, and its verdict.
- Rely on the comment alone. Add no finding of your own, guess nothing, leave out what is uncertain.
- Only write out the comment. Do not answer the question.

Question: {question}
Answer: {answer}
Comment: {comment}
Comment in full:"""


# ---------------------------------------------------------------- a policy as judge


def by_checking(
    policy: Policy | None, asked: Sequence[Prompt], responses: Sequence[str], max_new_tokens: int = 144
) -> list[float]:
    """Share of the claims of each response that the policy, asked to check them, calls right (greedy decoding).

    `asked` holds the prompt of each response's query, for its pictures. A response without claims gets 0; where no
    response has claims, no policy is needed.
    """
    claimed = [" ".join(f"{claim} ." for claim in claims.read(text)) for text in responses]
    checks = {}
    for prompt, text in zip(asked, claimed, strict=True):
        if text:
            checks[id(prompt), text] = Prompt(f"check : {text}", prompt.images, prompt.clip)
    names = [str(number) for number in range(len(checks))]
    limit = {"max_new_tokens": max_new_tokens, "desc": "judge"}
    replies = generate.sample(policy, list(checks.values()), names, **limit) if checks else []
    verdicts = {key: truth.verdicts(reply[0]) for key, reply in zip(checks, replies, strict=True)}
    scores = []
    for prompt, text in zip(asked, claimed, strict=True):
        words = verdicts.get((id(prompt), text), ())
        scores.append(words.count("right") / len(words) if words else 0.0)
    return scores


@torch.inference_mode()
def next_words(policy: Policy, asked: Sequence[Prompt], words: Sequence[str], batch: int = 64) -> torch.Tensor:
    """log p of each word as the next one, among these words alone, for every prompt: [prompts, words].

    A word is identified by its first token; the first tokens have to differ.
    """
    ids = [policy.processor.tokenizer(word, add_special_tokens=False).input_ids[0] for word in words]
    if len(set(ids)) != len(ids):
        raise ValueError(f"Several of the words {', '.join(map(repr, words))} begin with the same token; give others.")
    rows, order = {}, sorted(range(len(asked)), key=lambda i: (len(asked[i].clip), len(asked[i].text), i))
    for start in tqdm(range(0, len(order), batch), desc="judge", unit="batch"):
        places = order[start : start + batch]
        shown = [asked[i] for i in places]
        pictured = any(prompt.images or prompt.clip for prompt in shown)
        logits = generate.prefill(policy, prompts.encode(policy.processor, shown), pictured).logits[:, ids]
        rows |= zip(places, logits.double().log_softmax(-1).cpu(), strict=True)
    return torch.stack([rows[i] for i in range(len(asked))])


def rate(policy: Policy, asked: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
    """The expected points, 1 to 5, when the policy is asked how good each response is."""
    shown = [prompts.rating(policy.processor, *both) for both in zip(asked, responses, strict=True)]
    points = torch.tensor([float(word) for word in prompts.RATINGS], dtype=torch.double)
    return (next_words(policy, shown, prompts.RATINGS).exp() @ points).tolist()


def prefer(policy: Policy, asked: Sequence[Prompt], pairs: Sequence[tuple[str, str]]) -> list[int | None]:
    """Which of two responses the policy names as the better one, 1 or 2; None where both are equally likely."""
    shown = [prompts.comparison(policy.processor, prompt, *both) for prompt, both in zip(asked, pairs, strict=True)]
    gaps = (first - second for first, second in next_words(policy, shown, prompts.COMPARED_PLACES).tolist())
    return [None if gap == 0 else 1 if gap > 0 else 2 for gap in gaps]


# ---------------------------------------------------------------- reasons in full


def expansion(question: str, answer: str, comment: str) -> str:
    """The prompt that turns a short reason into a full one (task of the paper's Tab. 7, in our own words)."""
    fields = {"{question}": question, "{answer}": answer, "{comment}": comment}
    return re.sub(r"\{question\}|\{answer\}|\{comment\}", lambda match: fields[match.group()], EXPAND)
