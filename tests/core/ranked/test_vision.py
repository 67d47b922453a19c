"""Every picture goes through the tower once per step, and through a frozen tower once per run."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from mmrlhf_core.ranked import attention, batch, logps, vision


def rows_seen(tower):
    """A list that grows by the number of tiles (or patches) at each call of the tower."""
    rows = []

    def count(module, args, kwargs):
        rows.append(len([*args, *kwargs.values()][0]))

    tower.register_forward_pre_hook(count, with_kwargs=True)
    return rows


def queries_of(any_family):
    kinds = [("one", [3, 2, 4, 1]), ("large", [2, 2]), ("clip4", [3]), ("clip4", [1, 1]), ("text", [2])]
    return [any_family.query(kind, lengths, seed) for seed, (kind, lengths) in enumerate(kinds)]


def test_the_tower_runs_once_per_kind_of_media(any_family):
    model = attention.prepare(any_family.model())
    rows = rows_seen(vision.vision_tower(model))
    with torch.no_grad():
        logps.hidden_states(model, batch.build_tree(queries_of(any_family)))
    # InternVL feeds frames as pictures; Qwen2.5-VL counts patches: 64 a small picture, 192 the large, 64 two frames
    pictures, frames = 1 + 1 + 1 + 4, 4 + 4
    expected = {
        "llava_onevision": [pictures, frames],
        "qwen2_5_vl": [64 + 192, 2 * 128],
        "internvl": [1 + 5 + frames],
    }
    assert rows == expected[any_family.name]


def test_clips_end_their_line_with_features_of_older_releases_too(llava, monkeypatch):
    model, tree = attention.prepare(llava.model()), batch.build_tree([llava.query("clip6", [3])])
    with torch.no_grad():
        whole, features = vision.embed(model, tree), model.get_video_features

        def bare(clips):  # 6 frames of 2 × 2 tokens
            return SimpleNamespace(pooler_output=features(clips).pooler_output[:, :24])

        monkeypatch.setattr(model, "get_video_features", bare)
        assert torch.equal(vision.embed(model, tree), whole)


def test_cache_gives_the_same_values_and_gradients_and_no_second_tower_run(any_family):
    model = attention.prepare(any_family.model())
    tower = vision.vision_tower(model)
    tower.requires_grad_(False)
    rows = rows_seen(tower)
    tree = batch.build_tree(queries_of(any_family))
    cache = vision.TowerCache(model, max_bytes=10**8)
    names = [name for name, _ in model.named_modules()]

    def run(use):
        model.zero_grad()
        sums = logps.response_logps(model, tree, cache=use).sums
        sums.sum().backward()
        grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        return sums.detach(), grads

    plain, plain_grads = run(None)
    rows.clear()
    for number in range(3):
        sums, grads = run(cache)
        assert (sums - plain).abs().max() <= 1e-10
        assert grads.keys() == plain_grads.keys()
        assert all((grads[n] - plain_grads[n]).norm() <= 1e-6 * plain_grads[n].norm() + 1e-9 for n in grads)
        if number == 0:
            cold, misses, asked = len(rows), cache.misses, cache.misses + cache.hits
    if any_family.name != "qwen2_5_vl":  # its tower runs again around the stored blocks: patches in, projection out
        assert len(rows) == cold
    assert (cache.misses, cache.misses + cache.hits) == (misses, 3 * asked)
    assert [name for name, _ in model.named_modules()] == names, "the stand-in was left behind"
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.01)
    moved, _ = run(cache)
    fresh, _ = run(None)
    assert (moved - fresh).abs().max() <= 1e-10 < (moved - plain).abs().max(), "the projector must not be cached"


def test_a_changed_picture_is_a_miss(llava):
    model = attention.prepare(llava.model())
    vision.vision_tower(model).requires_grad_(False)
    cache = vision.TowerCache(model, max_bytes=10**8)
    query = llava.query("large", [2, 2])
    pixels = query.media["pixel_values"].clone()
    pixels[0, 2, 0, 0, 0] += 1e-3
    changed = replace(query, media={**query.media, "pixel_values": pixels})
    with torch.no_grad():
        logps.response_logps(model, batch.build_tree([query]), cache=cache)
        assert (cache.misses, cache.hits) == (5, 0)
        ours = logps.response_logps(model, batch.build_tree([changed]), cache=cache).sums
        assert (cache.misses, cache.hits) == (6, 4)
        assert (ours - logps.response_logps(model, batch.build_tree([changed])).sums).abs().max() <= 1e-10


def test_the_byte_budget_is_kept_and_the_oldest_goes_first(llava):
    model = attention.prepare(llava.model())
    vision.vision_tower(model).requires_grad_(False)
    one_tile = 16 * 32 * 8  # both views of a small square picture are the same tile
    cache = vision.TowerCache(model, max_bytes=2 * one_tile)
    trees = [batch.build_tree([llava.query("one", [2], seed)]) for seed in range(3)]
    with torch.no_grad():
        for number, misses in ((0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (1, 4)):
            logps.hidden_states(model, trees[number], cache)
            assert cache.misses == misses
            assert cache.held_bytes <= 2 * one_tile
        nothing = vision.TowerCache(model, max_bytes=0)
        logps.hidden_states(model, trees[0], nothing)
        assert nothing.held_bytes == 0


def test_a_trained_tower_and_a_foreign_cache_are_refused(llava):
    model, other = attention.prepare(llava.model()), attention.prepare(llava.model())
    tree = batch.build_tree([llava.query("one", [2])])
    with pytest.raises(ValueError, match="The vision tower is trained"):
        logps.hidden_states(model, tree, vision.TowerCache(model, 10**8))
    vision.vision_tower(other).requires_grad_(False)
    with pytest.raises(ValueError, match="belongs to the tower of another model"):
        logps.hidden_states(model, tree, vision.TowerCache(other, 10**8))


def test_placeholders_in_a_response_are_refused(llava):
    model = attention.prepare(llava.model())
    query = llava.query("one", [2, 2])
    responses = [query.responses[0], torch.tensor([model.config.image_token_id])]
    with pytest.raises(ValueError, match="37 placeholders for 36 pixel_values features"):
        logps.hidden_states(model, batch.build_tree([replace(query, responses=responses)]))


def test_a_frozen_tower_is_as_it_was_even_after_an_interruption(llava):
    model = llava.model()
    weights = list(vision.vision_tower(model).parameters())
    weights[0].requires_grad_(False)

    def interrupted():
        with vision.frozen(model):
            assert not any(weight.requires_grad for weight in weights)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [weight.requires_grad for weight in weights] == [False] + [True] * (len(weights) - 1)
