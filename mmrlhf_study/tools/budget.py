"""The compute budget of each profile, stage by stage: `python -m mmrlhf_study.tools.budget --machine 32x80GB`.

Models, queries, arms, seeds, grid, batches and layout come from `params.yaml` with the profile applied. No parameter
states the lengths of prompts and responses: they are assumptions and are printed with the result.
"""

import argparse
import math
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pandas as pd
import transformers as hf
import yaml

from mmrlhf_core.data import storage
from mmrlhf_core.models import policy
from mmrlhf_study.miniworld import curriculum, miniature, recipes
from mmrlhf_study.pipeline import params
from mmrlhf_study.pipeline.sections import BaseModelsParams, Params
from mmrlhf_study.tools import planner
from mmrlhf_study.tools.planner import Geometry, Machine, QuerySize

_ASSUMED = yaml.safe_load(Path(__file__).with_name("machines.yaml").read_text(encoding="utf-8"))
MACHINES = {name: Machine(**row) for name, row in _ASSUMED["machines"].items()}
DEFAULT_MACHINE = {name: row["machine"] for name, row in _ASSUMED["profiles"].items()}


@cache
def _miniature(width: int, layers: int) -> hf.PreTrainedConfig:
    """The miniature that chapter 00 makes at this width."""
    size = recipes.size(width, layers)
    return miniature.build_config(
        "llava_onevision", miniature.build_processor("llava_onevision", curriculum.words(), size), size
    )


def _config(p: BaseModelsParams, name: str = "base") -> hf.PreTrainedConfig:
    """Configuration of the model `name`, found by going back to what it started from."""
    if sizes := _ASSUMED["models"].get(name):
        text = hf.Qwen2Config(**sizes)
        return hf.LlavaOnevisionConfig(text_config=text, tie_word_embeddings=text.tie_word_embeddings)
    if name not in p.names:
        return hf.AutoConfig.from_pretrained(policy.locate(name), local_files_only=True)
    number = p.names.index(name)
    if p.starts[number] == recipes.SCRATCH:
        return _miniature(p.widths[number], p.layers[number])
    return _config(p, p.starts[number])


@dataclass(frozen=True)
class Profile:
    """One profile's base policy and amounts; `query` and `critique` are no longer than the parameters allow."""

    config: hf.PreTrainedConfig
    queries: int
    query: QuerySize
    critique: int
    p: Params

    @property
    def stage(self) -> int:
        """ZeRO stage of the preference runs; 0 where their layout is none of DeepSpeed's."""
        layout = self.p.mm_dpo.layout
        return int(layout[-1]) if layout.startswith("zero") else 0

    @property
    def per_run(self) -> float:
        """Queries of one preference run: the training split or fewer, times its epochs."""
        m, split = self.p.mm_dpo, self.p.annotation
        trained = self.queries * (1 - split.dev_share - split.test_share)
        return min(m.queries or trained, trained) * m.epochs


def parameters(name: str) -> Params:
    """The parameters of a profile: `params.yaml` as it is when it is in that profile, else with its file over it."""
    content = params.load_yaml(storage.path("params.yaml"))
    current = params.parse(content).base.profile
    if name == current:
        return params.parse(content)
    if current != params.PROFILES[0]:
        raise params.ParamsError(
            f"params.yaml is in profile {current!r}, and a plan of {name!r} needs the default under it. "
            f"Ask for the plan of {current!r}, or go back to the default first: git checkout params.yaml"
        )
    return params.parse(params.merge(content, params.load_yaml(storage.path(f"profiles/{name}.yaml"))))


def profile(name: str) -> Profile:
    """What a profile's parameters say, and what is assumed for it.

    Responses are as many as there are responders, unless preferences come from a file.
    """
    p, typical = parameters(name), _ASSUMED["profiles"][name]
    queries = (
        p.curation.image_queries + p.curation.video_queries + sum(p.curation.safety_counts) + p.curation.adversarial
    )
    responses = len(p.base_models.responders) if p.annotation.preferences == "miniworld" else typical["K"]
    tokens = min(typical["R"], p.annotation.max_new_tokens)
    query = QuerySize(typical["P"], tokens, responses, typical["crops"])
    critique = min(typical["critique"], p.reward_model.max_new_tokens)
    return Profile(_config(p.base_models), queries, query, critique, p)


@dataclass(frozen=True)
class Stage:
    """Cost of one stage in one layout: tokens through the language model, FLOPs, optimizer steps, seconds."""

    name: str
    layout: str
    tokens: float
    flops: float
    steps: float  # optimizer steps; 0 where nothing is trained
    seconds: float


def _train(
    name: str, layout: str, g: Geometry, zero: int, m: Machine, q: QuerySize, queries: float, batch: int, online: bool
) -> Stage:
    """Training that sees `queries` queries in all, one in a micro-batch on each GPU, `batch` in an optimizer step."""
    flops = planner.step_flops(g, layout, q, reference=online)
    seconds = queries / m.gpus * planner.step_seconds(g, m, flops, zero)
    tokens = queries * planner.text_tokens(layout, q) * (2 if online else 1)
    return Stage(name, layout, tokens, queries * flops, queries / batch, seconds)


def _forward(name: str, layout: str, g: Geometry, m: Machine, q: QuerySize, queries: float) -> Stage:
    """One forward over `queries` queries: reference log-probabilities, or scores."""
    flops = sum(planner.forward_flops(g, layout, q).values())
    seconds = queries / m.gpus * planner.step_seconds(g, m, flops, 0, training=False)
    return Stage(name, layout, queries * planner.text_tokens(layout, q), queries * flops, 0, seconds)


def _write(name: str, g: Geometry, m: Machine, q: QuerySize, texts: int, tokens: int, queries: float) -> Stage:
    """Sampling: one prefill of the prompt, then `texts` texts of `tokens` tokens written together."""
    prefill = sum(planner.forward_flops(g, "tree", QuerySize(q.P, 1, 1, q.crops)).values())
    written = texts * tokens
    flops = prefill + written * (g.flops["text"] + g.flops["head"])
    each = planner.step_seconds(g, m, prefill, 0, training=False) + planner.decode_seconds(g, m, tokens, texts)
    return Stage(name, "tree", queries * (q.P + written), queries * flops, 0, queries / m.gpus * each)


def stages(p: Profile, m: Machine, layout: str) -> list[Stage]:
    """Every stage that runs the model, with all its arms and seeds; `layout` is that of training.

    Per-pair training has its reference online. Self-improvement is counted for rounds of one.
    """
    g, q, online = planner.geometry(p.config), p.query, layout == "per_pair"
    r, o, own = p.p.reward_model, p.p.mm_dpo, p.p.self_improvement
    judged, sampled = replace(q, R=q.R + p.critique), replace(q, K=own.samples)
    learned = r.steps * r.batch * r.accumulation * len(r.arms) * len(r.seeds)
    runs = o.seeds * (1 + len(o.arms) + len(set(o.sft_weights) - {o.sft_weight}))
    cells = o.seeds * len([w for w in p.p.sensitivity.w if w]) * len(p.p.sensitivity.k)  # w = 0 is the arm dpo
    conditions = len(own.arms) + len(own.fewer) * len(own.sized) + len(own.more_rounds) * bool(own.repeated)
    asked = min(own.queries, p.queries) * own.seeds
    step, step_own = (part.batch * part.accumulation * part.processes for part in (o, own))
    rows = [_train("reward_model", layout, g, 0, m, judged, learned, r.batch * r.accumulation, False)]
    rows.append(_write("critiques", g, m, q, q.K, p.critique, p.queries))
    rows.append(_forward("margins", "once" if online else layout, g, m, judged, p.queries))
    if not online:
        rows.append(_forward("reference", layout, g, m, q, p.queries))
    rows.append(_train("mm_dpo", layout, g, p.stage, m, q, runs * p.per_run, step, online))
    rows.append(_train("sensitivity", layout, g, p.stage, m, q, cells * p.per_run, step, online))
    rows.append(_write("self_sampling", g, m, q, own.samples, q.R, asked))
    trained = asked * conditions * own.epochs
    rows.append(_train("self_improvement", layout, g, p.stage, m, sampled, trained, step_own, online))
    return rows


def _amount(value: float) -> str:
    """A number with a metric letter: 1.2 P, 340 G."""
    power = min(max(int(math.log10(max(value, 1)) // 3), 0), 7)
    return f"{value / 1000**power:.3g} {' kMGTPEZ'[power]}".strip()


def report(name: str, machine: Machine) -> str:
    """The budget as text: assumptions, memory per GPU by part, then every stage, tree and per pair."""
    p = profile(name)
    g, q, m = planner.geometry(p.config), p.query, machine
    used = pd.DataFrame({layout: planner.memory(g, layout, q, p.stage, m.gpus) for layout in ("tree", "per_pair")})
    used.loc["total"] = used.sum()
    lines = [
        f"profile {name}: {g.total / 1e9:.3g} B parameters, {p.queries} queries of P={q.P} R={q.R} K={q.K}, "
        f"{q.crops} crops, critiques of {p.critique} tokens (lengths are assumptions)",
        f"machine: {m.gpus} × {m.memory:g} GiB, {m.bandwidth:g} GB/s, {m.peak:g} TFLOP/s at {m.utilisation:.0%} "
        f"utilisation (assumed), links {m.link:g} GB/s, ZeRO-{p.stage}",
        f"\nGiB per GPU\n{used.to_string(float_format='{:.3f}'.format)}",
    ]
    lines += [f"{layout} does not fit in {m.memory:g} GiB" for layout in used if used[layout]["total"] > m.memory]
    for layout in used:
        table = pd.DataFrame([
            {"stage": row.name, "layout": row.layout, "tokens": _amount(row.tokens), "FLOPs": _amount(row.flops),
             "steps/s": f"{row.steps / row.seconds:.3g}" if row.steps else "", "GPU-hours": row.seconds * m.gpus / 3600}
            for row in stages(p, m, layout)
        ]).set_index("stage").rename_axis(None)  # fmt: skip
        hours = table["GPU-hours"].sum()
        lines.append(f"\n{table.to_string(float_format='{:.3g}'.format)}\nall {layout}: {hours:.3g} GPU-hours")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """The command line; see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m mmrlhf_study.tools.budget", description=__doc__.split("\n")[0])
    parser.add_argument("--profile", choices=sorted(DEFAULT_MACHINE), default="paper")
    parser.add_argument("--machine", choices=sorted(MACHINES), help="a known machine; given figures replace its own")
    parser.add_argument("--gpus", type=int)
    for name, unit in (("memory", "GiB"), ("bandwidth", "GB/s"), ("peak", "TFLOP/s"), ("link", "GB/s")):
        parser.add_argument(f"--{name}", type=float, help=f"{unit} of one GPU")
    parser.add_argument("--utilisation", type=float, help="share of the peak that is reached")
    given = vars(parser.parse_args(arguments))
    name = given.pop("profile")
    machine = MACHINES[given.pop("machine") or DEFAULT_MACHINE[name]]
    print(report(name, replace(machine, **{key: value for key, value in given.items() if value is not None})))


if __name__ == "__main__":
    main()
