"""Eight answers to one query: one prefill with the cache repeated, against transformers' `num_return_sequences=8`.

    python benchmarks/sampling.py            measure; the numbers stay in reports/benchmarks/sampling.json
    python benchmarks/sampling.py --table    print the last numbers

P prompt tokens with a picture, R written tokens, the model of `engine.py`'s large parts on the CPU. Both sides sample
from the whole distribution at temperature 1 and write all R tokens; greedy answers of both are compared token by token
first, and where they differ no ratio is shown. Rounds run both in turn; medians are kept. transformers repeats the
prompt before it reads it, so it reads eight.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import engine_cases as cases
import torch
import transformers
from annotation import machine

from mmrlhf_core.data import storage
from mmrlhf_core.models import prompts
from mmrlhf_core.models.policy import Policy
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_study.annotation import sampling
from mmrlhf_study.annotation.sampling import Sampling

OUT = "reports/benchmarks/sampling.json"
P, R, N, ROUNDS, SIDE = 1000, 32, 8, 5, 352
GOAL = 3.0


def build(length: int, side: int, sizes: dict, words: int) -> tuple[Policy, Prompt]:
    """A policy with random weights, and a prompt of `length` tokens with a picture of `side` pixels."""
    part = cases.Part("sampling", (length, length), (2, 2), (2, 2), side=side, sizes=sizes, words=words)
    case = cases.build(part)
    case.model.set_attn_implementation("sdpa")
    learner = Policy(case.model.eval(), case.processor)
    words_ = [f"w{number}" for number in range(words)]
    short = prompts.encode(learner.processor, [Prompt("", (case.pictures[0],))])["input_ids"].shape[1]
    text = " ".join(words_[number % words] for number in range(length - short))
    prompt = Prompt(text, (case.pictures[0],))
    found = prompts.encode(learner.processor, [prompt])["input_ids"].shape[1]
    if found != length:
        raise ValueError(f"The prompt has {found} tokens instead of {length}; its words are no longer one token each.")
    return learner, prompt


def ours(learner: Policy, prompt: Prompt, how: Sampling) -> list[list[int]]:
    """One prefill."""
    return sampling.answer(learner, prompt, "benchmark", how)[0]


def theirs(learner: Policy, prompt: Prompt, how: Sampling) -> list[list[int]]:
    """transformers' own sampling; greedy it allows only one sequence."""
    inputs = prompts.encode(learner.processor, [prompt])
    greedy = {"do_sample": False, "num_return_sequences": 1}
    sampled = {"do_sample": True, "temperature": how.temperature, "top_k": 0, "top_p": how.top_p}
    chosen = sampled | {"num_return_sequences": how.n} if how.temperature else greedy
    limits = {"min_new_tokens": how.max_new_tokens, "max_new_tokens": how.max_new_tokens}
    found = learner.model.generate(**inputs, **chosen, **limits, pad_token_id=0)
    return found[:, inputs["input_ids"].shape[1] :].tolist()


def whole(learner: Policy, prompt: Prompt, how: Sampling) -> Sampling:
    """The first seed whose answers all have the full length, so that both sides write as many tokens."""
    for seed in range(100):
        tried = Sampling(how.n, how.temperature, how.top_p, how.max_new_tokens, seed)
        if all(len(ids) == how.max_new_tokens for ids in ours(learner, prompt, tried)):
            return tried
    raise ValueError("No seed of 100 gives answers of full length; the model ends too readily to be timed.")


def seconds(step: Callable[[], object]) -> float:
    begun = time.perf_counter()
    step()
    return time.perf_counter() - begun


def measure(learner: Policy, prompt: Prompt, n: int, length: int, rounds: int) -> dict:
    """Both sides in turn, after greedy answers were compared and both have run once."""
    greedy = Sampling(n, temperature=0.0, max_new_tokens=length)
    one = theirs(learner, prompt, greedy)[0]
    end = learner.processor.tokenizer.eos_token_id
    same = end not in one and all(ids == one for ids in ours(learner, prompt, greedy))
    how = whole(learner, prompt, Sampling(n, max_new_tokens=length))
    sides = {"ours": lambda: ours(learner, prompt, how), "transformers": lambda: theirs(learner, prompt, how)}
    sides["transformers"]()
    taken = {name: [] for name in sides}
    for _ in range(rounds):
        for name, step in sides.items():
            taken[name].append(seconds(step))
    facts = {"n": n, "written": length, "prompt": prompts.encode(learner.processor, [prompt])["input_ids"].shape[1]}
    medians = {name: statistics.median(values) for name, values in taken.items()}
    ratio = medians["transformers"] / medians["ours"]
    return facts | {"greedy_identical": same, "seconds": taken, "medians": medians, "ratio": ratio}


def table(found: dict) -> str:
    """The numbers as text; without identical greedy answers there is no ratio."""
    said = f"{found['ratio']:.2f}x, asked: {GOAL:g}x" if found["greedy_identical"] else "greedy answers differ"
    lines = [f"{found['n']} answers, P = {found['prompt']}, R = {found['written']}: {said}"]
    lines += [f"  {name:13} {value:8.3f} s" for name, value in found["medians"].items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="only print the last numbers")
    if not parser.parse_args().table:
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))
        found = measure(*build(P, SIDE, cases.TEXT, 3950), N, R, ROUNDS)
        versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        facts = {"machine": machine(), "threads": torch.get_num_threads(), **versions}
        storage.write_json(OUT, found | facts)
    print(table(storage.read_json(Path(OUT))))


if __name__ == "__main__":
    main()
