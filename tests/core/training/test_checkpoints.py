"""Adam's moments, gathered from a DeepSpeed engine by name, continue in a plain Adam."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmrlhf_core.training import checkpoints


@pytest.fixture
def trained():
    """A model with a frozen bias and an Adam that took two steps on it."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    optimizer = torch.optim.AdamW([model.weight], lr=0.1)
    for _ in range(2):
        model(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def engine(monkeypatch, model, optimizer, stage):
    """What `save_moments` uses of DeepSpeed; returns the engine and the parameter groups that were initialised."""
    linked = []
    utils = SimpleNamespace(
        lazy_init_hp_params_optimizer_state=lambda group, part, state: linked.append(group),
        safe_get_full_optimizer_state=lambda parameter, moment: optimizer.state[parameter][moment],
    )
    monkeypatch.setitem(sys.modules, "deepspeed", SimpleNamespace(utils=utils))
    monkeypatch.setitem(sys.modules, "deepspeed.utils", utils)
    inner = SimpleNamespace(
        bit16_groups=["first", "second"], single_partition_of_fp32_groups=[0, 1], optimizer=SimpleNamespace(state={})
    )
    return SimpleNamespace(module=model, optimizer=inner, zero_optimization_stage=lambda: stage), linked


@pytest.mark.parametrize(("stage", "groups"), [(2, ["first", "second"]), (3, [])])
def test_gathered_moments_continue_in_a_plain_adam(tmp_path, monkeypatch, trained, stage, groups):
    model, optimizer = trained
    deepspeed, linked = engine(monkeypatch, model, optimizer, stage)
    checkpoints.save_moments(deepspeed, tmp_path, write=False)
    assert not any(tmp_path.iterdir())
    checkpoints.save_moments(deepspeed, tmp_path, write=True)
    assert linked == 2 * groups
    again = torch.optim.AdamW([model.weight], lr=1.0)
    checkpoints.load_moments(model, again, tmp_path, step=2, rates=[0.1])
    assert again.param_groups[0]["lr"] == 0.1
    for name, value in optimizer.state[model.weight].items():
        assert torch.equal(again.state[model.weight][name], value), name
    assert model.bias not in again.state
