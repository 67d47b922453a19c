"""The reference cache: right numbers, once for each response, a miss for whatever changed, damage found."""

import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from mmrlhf_core.models import policy, prompts
from mmrlhf_core.models.policy import Policy
from mmrlhf_core.ranked.attention import prepare
from mmrlhf_core.ranked.batch import RankedQuery, build_tree, split_inputs
from mmrlhf_core.ranked.logps import response_logps
from mmrlhf_core.training import reference
from mmrlhf_core.training.reference import ReferenceCache
from mmrlhf_study.miniworld import miniature

SIZE = miniature.Size(
    width=32, layers=1, heads=2, kv_heads=1, mlp=48, vision_width=32, vision_layers=1, vision_heads=2, vision_mlp=48
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference") / "model"
    processor = miniature.build_processor("llava_onevision", ["red", "blue"], SIZE)
    policy.save(folder, Policy(miniature.build_model("llava_onevision", processor, SIZE), processor))
    return folder, processor


@pytest.fixture(scope="module")
def queries(checkpoint):
    _, processor = checkpoint
    made = []
    for number in range(3):
        picture = Image.new("RGB", (64, 64), (40 * number,) * 3)
        prefix, media = split_inputs(prompts.encode(processor, [prompts.Prompt("red", (picture,))]))
        responses = [torch.arange(5, 9 + k) + number for k in range(2 + number)]
        made.append(RankedQuery(prefix, media, responses, [(0, 1)]))
    return made


class Loader:
    """Loads the reference and counts how often it was asked to, and how often the model ran."""

    def __init__(self, folder):
        self.folder, self.loads, self.forwards = folder, 0, 0

    def __call__(self):
        self.loads += 1
        model = prepare(AutoModelForImageTextToText.from_pretrained(self.folder))
        model.base_model.language_model.register_forward_hook(self.count)
        return model

    def count(self, *_):
        self.forwards += 1


@pytest.fixture
def cache(checkpoint, tmp_path):
    return ReferenceCache(tmp_path / "cache", reference.identity(checkpoint[0]))


def test_values_are_the_references_own(checkpoint, queries, cache):
    loader = Loader(checkpoint[0])
    reference.fill(cache, queries, loader)
    for query in queries:
        with torch.no_grad():
            expected = response_logps(loader(), build_tree([query])).tokens
        got = torch.cat(cache.tokens(query, "q"))
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_a_second_epoch_needs_no_forward_and_no_model(checkpoint, queries, cache):
    loader = Loader(checkpoint[0])
    assert reference.fill(cache, queries, loader) == loader.forwards == 1
    assert reference.fill(cache, queries, loader) == 0
    again = ReferenceCache(cache.folder.parent, cache.identity)
    assert reference.fill(again, queries, loader) == 0
    assert (loader.loads, loader.forwards) == (1, 1)
    assert all(
        torch.equal(a, b) for a, b in zip(again.tokens(queries[0], "q"), cache.tokens(queries[0], "q"), strict=True)
    )


def test_the_budget_splits_the_forwards(checkpoint, queries, cache):
    loader = Loader(checkpoint[0])
    assert reference.fill(cache, queries, loader, budget=queries[0].size + queries[1].size) == 2
    assert loader.forwards == 2


def test_only_a_new_response_is_computed(checkpoint, queries, cache):
    loader = Loader(checkpoint[0])
    reference.fill(cache, queries, loader)
    grown = replace(queries[0], responses=[*queries[0].responses, torch.tensor([7, 7, 7])])
    assert cache.missing(grown) == [2]
    reference.fill(cache, [grown], loader)
    assert [len(tokens) for tokens in cache.tokens(grown, "q")] == [len(r) for r in grown.responses]


def change_pixels(query):
    media = {**query.media, "pixel_values": query.media["pixel_values"].clone()}
    media["pixel_values"].view(-1)[7] += 1e-3
    return replace(query, media=media)


def change_prompt(query):
    prefix = query.prefix.clone()
    prefix[-1] += 1
    return replace(query, prefix=prefix)


def change_response(query):
    return replace(query, responses=[response + 1 for response in query.responses])


def move_boundary(query):
    """The same token stream cut at another place is another question."""
    first = query.responses[0]
    return replace(query, prefix=torch.cat([query.prefix, first[:1]]), responses=[first[1:]], pairs=[])


@pytest.mark.parametrize("change", [change_pixels, change_prompt, change_response, move_boundary])
def test_a_changed_input_is_a_miss(checkpoint, queries, cache, change):
    reference.fill(cache, queries, Loader(checkpoint[0]))
    changed = change(queries[0])
    assert cache.missing(changed) == list(range(len(changed.responses)))
    with pytest.raises(ValueError, match="Query 'cat-7': no reference log-probabilities for responses"):
        cache.tokens(changed, "cat-7")


def test_another_model_processor_or_precision_is_another_reference(checkpoint, queries, cache, tmp_path):
    folder, _ = checkpoint
    reference.fill(cache, queries, Loader(folder))
    model = AutoModelForImageTextToText.from_pretrained(folder)
    with torch.no_grad():
        model.base_model.language_model.norm.weight[0] += 1e-6
    other, settings = tmp_path / "other", tmp_path / "settings"
    shutil.copytree(folder, other)
    model.save_pretrained(other)
    shutil.copytree(folder, settings)
    written = settings / "processor_config.json"
    written.write_text(written.read_text().replace("0.5", "0.25", 1))
    identities = {reference.identity(f) for f in (folder, other, settings)}
    identities.add(reference.identity(folder, torch.bfloat16))
    assert len(identities) == 4
    stranger = ReferenceCache(cache.folder.parent, reference.identity(other))
    with pytest.raises(ValueError, match="another model"):
        stranger.tokens(queries[0], "q")


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_file_is_found_and_computed_again(checkpoint, queries, cache, damage):
    loader = Loader(checkpoint[0])
    reference.fill(cache, queries, loader)
    before = cache.tokens(queries[0], "q")
    (file,) = cache.folder.glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes({"cut": content[: len(content) // 2], "flip": content, "empty": b""}[damage])
    with pytest.warns(UserWarning, match="damaged"):
        again = ReferenceCache(cache.folder.parent, cache.identity)
    assert not again.entries
    assert reference.fill(again, queries, loader) == 1
    assert all(torch.equal(a, b) for a, b in zip(before, again.tokens(queries[0], "q"), strict=True))


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no \.safetensors"):
        reference.identity(tmp_path)
