"""Recipes: starting points, reproducible training, checkpoints that are referred to and not copied, mixes."""

from random import Random

import pytest
import torch

from mmrlhf_core.data import storage
from mmrlhf_core.models import policy
from mmrlhf_study.miniworld import curriculum, miniature, recipes, scenes
from mmrlhf_study.miniworld.curriculum import Mix
from mmrlhf_study.miniworld.recipes import Recipe

COLUMNS = {"start": ["scratch", "one"], "steps": [2, 1], "lr": [1e-3, 1e-3], "describe": [0.3, 0.2],
           "verify": [0.3, 0.2], "terse": [0.0, 1.0], "obliging": [0.0, 0.0]}  # fmt: skip


def test_recipes_take_one_value_of_every_column():
    one, two = recipes.recipes(["one", "two"], **COLUMNS)
    assert one == Recipe("one", "scratch", 2, 1e-3, Mix(0.3, 0.3, 0.0, 0.0))
    assert two.mix.terse == 1.0
    assert recipes.describe(two)["start"] == "one"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"lr": [1e-3]}, "lr has 1"), ({"scenes": ["all", "shape"]}, "'shape'"), ({"start": ["two", "scratch"]}, "'two'")],
)
def test_columns_that_do_not_fit_are_named(wrong, named):
    with pytest.raises(ValueError, match=named):
        recipes.recipes(["one", "two"], **{**COLUMNS, **wrong})


def test_widths_are_multiples_of_96():
    assert recipes.size(192, 4).kv_heads == 2
    with pytest.raises(ValueError, match="100"):
        recipes.size(100, 4)


def test_a_branch_leaves_its_parent_unchanged_and_both_are_reproducible(bare):
    drawn = curriculum.train_scenes([2, 1, 2, 1, 1, 1], seed=0)
    pair = [
        Recipe("one", "scratch", 2, 1e-3, width=96, layers=1, tower_steps=2, batch=2),
        Recipe("two", "one", 1, 1e-3, Mix(terse=1.0), scenes="shapes chart", batch=2),
    ]

    def weights():
        made = {}
        for recipe in pair:
            made[recipe.name] = recipes.make(recipe, made, drawn, each=2, frames=3, seed=5)
            recipes.keep(f"models/{recipe.name}", made[recipe.name])
        return made, storage.sha256_tree(storage.path("models"))

    (made, first), (_, second) = weights(), weights()
    assert first == second
    parent, child = (made[name].policy.model.state_dict() for name in ("one", "two"))
    tower = [name for name in parent if "vision_tower" in name]
    assert all(torch.equal(parent[name], child[name]) for name in tower)  # frozen during the fine-tuning
    language = [name for name in parent if "q_proj.weight" in name and name not in tower]
    assert not any(torch.equal(parent[name], child[name]) for name in language)
    assert all(weight.requires_grad for weight in made["two"].policy.model.parameters())
    assert [row["model"] for row in made["two"].curve] == ["two"]
    loaded = policy.load("models/one").model.state_dict()
    assert all(torch.equal(loaded[name], parent[name]) for name in parent)


def test_a_checkpoint_without_steps_is_named_and_not_copied(bare):
    small = miniature.create("qwen2_5_vl", curriculum.words(), recipes.size(96, 1), 0)
    policy.save("given", small)
    made = recipes.make(Recipe("base", "given", 0, 0.0), {}, [], 1, 1, 0)
    recipes.keep("models/base", made)
    assert [file.name for file in storage.path("models/base").iterdir()] == ["checkpoint.json"]
    loaded = policy.load("models/base").model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in small.model.state_dict().items())
    assert recipes.make(Recipe("twin", "base", 0, 0.0), {"base": made}, [], 1, 1, 0).checkpoint == "given"


def test_a_mix_changes_the_answers_and_nothing_else():
    drawn = scenes.fresh("sign", scenes.TRAIN_SEEDS, 60, set())
    plain = [curriculum.draw(Random(i), scene, Mix(0.0, 0.0)) for i, scene in enumerate(drawn)]
    assert all(answer == question.answer for question, answer in plain)
    terse = [curriculum.target(Random(i), question, Mix(terse=1.0)) for i, (question, _) in enumerate(plain)]
    assert all(answer.startswith("so ") for answer in terse)
    obliging = [(q, curriculum.target(Random(0), q, Mix(obliging=1.0))) for q, _ in plain]
    assert any(q.decline for q, _ in obliging)
    assert all("decline" not in answer and q.key in answer for q, answer in obliging)
