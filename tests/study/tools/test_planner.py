"""The planner's counts against the cost model's worked example and against counted FLOPs."""

from dataclasses import replace

import pytest
import torch
import transformers as hf
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_project import ROOT
from torch.utils.flop_counter import FlopCounterMode

from mmrlhf_core.models import prompts
from mmrlhf_core.models.prompts import Prompt
from mmrlhf_study.miniworld import curriculum, miniature, recipes
from mmrlhf_study.pipeline import params
from mmrlhf_study.tools import budget, planner
from mmrlhf_study.tools.planner import Machine, QuerySize

LAYOUTS = ("tree", "per_pair")


@pytest.mark.parametrize(
    ("query", "expected"),
    # per pair K(K−1)(P+R); shared within the pair ½K(K−1)(P+2R); once K(P+R); tree P + K·R
    [
        (QuerySize(P=1500, R=200, K=4), [12 * 1700, 6 * 1900, 4 * 1700, 1500 + 800]),
        (QuerySize(P=7000, R=200, K=5), [20 * 7200, 10 * 7400, 5 * 7200, 7000 + 1000]),
    ],
)
def test_tokens_by_hand(query, expected):
    assert [planner.text_tokens(layout, query) for layout in planner.SEQUENCE_LAYOUTS] == expected


@given(st.integers(1, 40), st.integers(1, 20), st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_attended_positions_are_the_mask_added_up(P, R, K):
    branch = torch.cat([torch.full((P,), -1), torch.arange(K).repeat_interleave(R)])
    causal = torch.ones(len(branch), len(branch), dtype=torch.bool).tril()
    tree = causal & ((branch[None] == branch[:, None]) | (branch[None] == -1))
    q = QuerySize(P=P, R=R, K=K)
    assert planner.attended("tree", q) == tree.sum()
    assert planner.attended("once", q) == K * torch.ones(P + R, P + R).tril().sum()
    assert planner.attended("tree", q, dense=True) == (P + K * R) ** 2


@pytest.fixture(scope="module", params=["llava_onevision", "internvl"])
def small(request):
    processor = miniature.build_processor(request.param, ["red"])
    model = miniature.build_model(request.param, processor)
    return model, processor, planner.geometry(model.config)


def test_parameters_are_all_of_them(small):
    model, _, g = small
    assert g.total == sum(p.numel() for p in model.parameters())


def inputs(model, processor, responses):
    """One picture and `responses` random tokens behind it, as the stock forward takes them."""
    batch = prompts.encode(processor, [Prompt("red", (Image.new("RGB", (64, 64)),))])
    crops = batch["pixel_values"].shape[-4]
    prompt = batch["input_ids"].shape[1]
    tail = torch.full((1, responses), 5)
    batch["input_ids"] = torch.cat([batch["input_ids"], tail], 1)
    batch.pop("attention_mask", None)
    return batch, prompt, crops


def test_flops_of_a_plain_sequence_are_the_counted_ones(small):
    model, processor, g = small
    batch, prompt, crops = inputs(model, processor, 7)
    q = QuerySize(P=prompt, R=7, K=1, crops=crops)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("vision" not in name)
    with FlopCounterMode(display=False) as counter:
        logits = model(**batch, logits_to_keep=8).logits[:, :-1]
    forward = counter.get_total_flops()
    # the stock call keeps one position more than the responses have tokens
    expected = planner.forward_flops(g, "once", q, dense=True)
    expected["head"] += 2 * g.width * g.vocabulary
    assert forward == pytest.approx(sum(expected.values()), rel=1e-9)
    with FlopCounterMode(display=False) as counter:
        logits.sum().backward()
    backward = 2 * (expected["text"] + expected["projector"] + expected["head"]) + 2.5 * expected["attention"]
    # a frozen tower needs no gradient of the projector's input, which the plan counts all the same
    assert counter.get_total_flops() == pytest.approx(backward, rel=0.01)


def test_step_ratios_of_the_cost_model():
    # design figures for 7 B with checkpointing: per pair with online reference : once : tree
    g = planner.geometry(budget.profile("paper").config)
    assert 7.9e9 < g.total < 8.1e9
    for query, expected in ((QuerySize(1500, 200, 4, 2), (11.5, 2.9)), (QuerySize(7000, 200, 5, 10), (23.5, 4.4))):
        tree = planner.step_flops(g, "tree", query)
        per_pair = planner.step_flops(g, "per_pair", query, reference=True) / tree
        once = planner.step_flops(g, "once", query) / tree
        assert (per_pair, once) == pytest.approx(expected, rel=0.01)


def test_zero_stages_split_what_they_name():
    g, q = planner.geometry(budget.profile("single_gpu").config), QuerySize(3000, 200, 4)
    one, two, three = (planner.memory(g, "tree", q, stage, 8) for stage in (1, 2, 3))
    assert one["weights"] == two["weights"] == 8 * three["weights"]
    assert one["gradients"] == 8 * two["gradients"]
    assert one["optimizer"] == two["optimizer"] == planner.memory(g, "tree", q, 0, 8)["optimizer"] / 8
    assert one["reference"] == 0 < planner.memory(g, "per_pair", q, 1, 8)["reference"]
    # bf16 weights, two bytes each
    assert one["weights"] == pytest.approx(2 * g.total / 2**30)


def test_time_is_the_slowest_of_arithmetic_weights_and_links():
    g = planner.geometry(budget.profile("paper").config)
    slow_links = Machine(gpus=2, memory=80, bandwidth=1e9, peak=1e9, link=1)
    # ZeRO-3 moves three times half of 2 bytes × parameters at 1 GB/s
    assert planner.step_seconds(g, slow_links, 1e15, 3) == pytest.approx(3 * 2 * g.total / 2 / 1e9)
    arithmetic = Machine(gpus=2, memory=80, bandwidth=1e9, peak=100, link=1e9, utilisation=0.5)
    assert planner.step_seconds(g, arithmetic, 1e15, 3) == pytest.approx(20.0)


@pytest.mark.parametrize("profile", ["smoke", "mini", "single_gpu", "paper"])
def test_every_profile_has_a_report(profile):
    text = budget.report(profile, budget.MACHINES[budget.DEFAULT_MACHINE[profile]])
    for stage in ("reward_model", "margins", "mm_dpo", "sensitivity", "self_improvement"):
        assert f"\n{stage}" in text
    rows = {layout: budget.stages(budget.profile(profile), budget.MACHINES["8x80GB"], layout) for layout in LAYOUTS}
    spent = {layout: sum(row.flops for row in rows[layout]) for layout in LAYOUTS}
    assert spent["per_pair"] > 2 * spent["tree"]


def test_amounts_are_those_of_the_parameters(project):
    paper, mini, smoke = (budget.profile(name) for name in ("paper", "mini", "smoke"))
    assert paper.queries == 29_997, "the paper's number"
    assert 7.9e9 < planner.geometry(paper.config).total < 8.1e9
    assert 0.8e9 < planner.geometry(budget.profile("single_gpu").config).total < 1e9
    assert budget.parameters("smoke").annotation.max_new_tokens >= smoke.query.R
    file = project / "params.yaml"
    content = params.load_yaml(file)
    content["curation"]["image_queries"] += 100
    content["base_models"]["responders"] = content["base_models"]["responders"][:2]
    content["base_models"]["widths"] = [288] * len(content["base_models"]["widths"])
    content["mm_dpo"] |= {"layout": "zero2", "processes": 4, "queries": 50, "epochs": 2.0, "seeds": 5, "arms": ["dpo"]}
    content["mm_dpo"] |= {"batch": 1, "accumulation": 5, "sft_weight": 0.5, "sft_weights": [0.0, 0.5]}
    content["sensitivity"] |= {"w": [0.0, 0.1, 0.2], "k": [0.5]}
    file.write_text(yaml.safe_dump(content))
    changed = budget.profile("mini")
    steps = {row.name: row.steps for row in budget.stages(changed, budget.MACHINES["2-core-cpu"], "tree")}
    # 50 queries twice, 20 in a step: 5 steps a run; MM-DPO, one arm and one other weight, or two cells, by 5 seeds
    assert (changed.stage, steps["mm_dpo"], steps["sensitivity"]) == (2, 5 * 3 * 5, 5 * 2 * 5)
    assert (changed.queries, changed.query.K) == (mini.queries + 100, 2)
    assert changed.config.text_config.hidden_size == 288 > mini.config.text_config.hidden_size
    assert f"{changed.queries} queries of P=60 R=40 K=2" in budget.report("mini", budget.MACHINES["2-core-cpu"])


def test_a_plan_needs_the_default_under_another_profile(project):
    params.apply_profile("smoke")
    assert budget.profile("smoke").queries < 1000
    with pytest.raises(params.ParamsError, match=r"'smoke'.*'paper'"):
        budget.profile("paper")


def test_the_geometry_is_that_of_the_model_that_is_made(project):
    made = miniature.create("llava_onevision", curriculum.words(), recipes.size(96, 2), seed=0)
    assert planner.geometry(budget.profile("smoke").config).total == made.model.num_parameters()


def test_bad_machines_are_refused():
    with pytest.raises(ValueError, match=r"gpus .*0"):
        Machine(gpus=0, memory=80, bandwidth=1, peak=1, link=1)
    with pytest.raises(ValueError, match="at most 1"):
        Machine(gpus=1, memory=80, bandwidth=1, peak=1, link=1, utilisation=40)
    with pytest.raises(ValueError, match="'qwen2'"):
        planner.geometry(hf.Qwen2Config())


def test_the_plan_is_printed_for_a_machine(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    budget.main(["--profile", "paper", "--machine", "8x80GB", "--gpus", "16"])
    shown = capsys.readouterr().out
    assert "machine: 16 × 80 GiB" in shown
    assert shown == budget.report("paper", replace(budget.MACHINES["8x80GB"], gpus=16)) + "\n"
