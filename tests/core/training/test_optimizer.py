"""Muon and AdamW as one: each half is the published one, and a saved state goes on to the bit."""

import copy

import pytest
import torch

from mmrlhf_core.training.optimizer import Mixed, orthogonal


def model(seed=0):
    torch.manual_seed(seed)
    return torch.nn.ModuleDict(
        {"embed": torch.nn.Embedding(7, 24), "up": torch.nn.Linear(24, 48), "down": torch.nn.Linear(48, 8)}
    )


def gradients(made, seed):
    generator = torch.Generator().manual_seed(seed)
    for weight in made.parameters():
        weight.grad = torch.randn(weight.shape, generator=generator)


@pytest.mark.parametrize("shape", [(3, 24, 24), (2, 24, 64), (2, 64, 24)])
def test_singular_values_become_about_one_and_vectors_stay(shape):
    given = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    made = orthogonal(given)
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.3
    assert values.max() < 1.3
    u, _, v = torch.linalg.svd(given, full_matrices=False)
    core = u.mT @ made @ v.mT
    assert (core - torch.diag_embed(core.diagonal(dim1=1, dim2=2))).abs().max() < 1e-3


@pytest.mark.parametrize(("precision", "alike"), [(torch.float32, 0.99), (torch.bfloat16, 0.999)])
def test_both_halves_are_the_published_ones(precision, alike):
    ours, theirs = model(), model()
    matrices = [theirs["up"].weight, theirs["down"].weight]
    rest = [theirs["embed"].weight, theirs["up"].bias, theirs["down"].bias]
    mixed = Mixed(ours.named_parameters(), 1e-3, precision=precision)
    muon = torch.optim.Muon(matrices, lr=1e-2, weight_decay=0.01)
    adamw = torch.optim.AdamW(rest, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01)
    start = copy.deepcopy(ours.state_dict())
    for seed in range(5):
        gradients(ours, seed), gradients(theirs, seed)
        mixed.step(), muon.step(), adamw.step()
    for name, weight in theirs.state_dict().items():
        step, wanted = ours.state_dict()[name] - start[name], weight - start[name]
        same = torch.nn.functional.cosine_similarity(step.flatten(), wanted.flatten(), dim=0)
        muons = name in ("up.weight", "down.weight")  # torch's works in bfloat16
        assert same > (alike if muons else 0.999999), name
        assert step.norm().item() == pytest.approx(wanted.norm().item(), rel=0.05 if muons else 1e-5), name


def test_a_saved_state_goes_on_to_the_bit():
    whole, first = model(), model()
    long, short = Mixed(whole.named_parameters(), 1e-3), Mixed(first.named_parameters(), 1e-3)
    for seed in range(6):
        gradients(whole, seed)
        long.step()
    for seed in range(3):
        gradients(first, seed)
        short.step()
    resumed = model(seed=9)
    resumed.load_state_dict(first.state_dict())
    again = Mixed(resumed.named_parameters(), 5.0)
    again.load_state_dict(copy.deepcopy(short.state_dict()))
    for seed in range(3, 6):
        gradients(resumed, seed)
        again.step()
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
