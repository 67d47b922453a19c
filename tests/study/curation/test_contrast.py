"""The small CLIP learns, repeats itself, and refuses captions it cannot read."""

import pytest
import torch
from drawings import WORDS, drawing

from mmrlhf_core.data import storage
from mmrlhf_study.curation import contrast, embed


def test_tokens_by_hand_and_captions_that_cannot_be_read():
    ids = contrast.tokens(["red right", "blue"], WORDS)
    assert ids[0].tolist()[:4] == [1, 5, 6, 0]
    assert ids[1].tolist()[:3] == [3, 6, 0]
    assert ids.shape == (2, contrast.CONTEXT)
    assert (ids.argmax(1) == torch.tensor([2, 1])).all()  # open_clip reads a caption off its highest id
    with pytest.raises(ValueError, match="'pink' in 'pink left'"):
        contrast.tokens(["pink left"], WORDS)
    with pytest.raises(ValueError, match=r"24 .* 23 "):
        contrast.tokens(["red " * 24], WORDS)


def test_training_finds_the_caption_and_repeats_itself(clip, tmp_path):
    pairs = [drawing(number) for number in range(6)]
    folders, losses = [], []
    for name in ("one", "two"):
        encoder = embed.load(str(clip))
        assert contrast.recall(encoder, pairs, WORDS)[0] < 6
        losses.append(contrast.train(encoder, pairs, WORDS, steps=25, batch=6, lr=1e-3, seed=0))
        assert contrast.recall(encoder, pairs, WORDS) == (6, 6)
        again = contrast.save(tmp_path / name, encoder, WORDS)
        assert contrast.recall(again, pairs, WORDS) == (6, 6)
        folders.append(storage.sha256_tree(tmp_path / name))
    assert losses[0] == losses[1]
    assert folders[0] == folders[1]
    assert sum(losses[0][-5:]) < 0.5 * sum(losses[0][:5])


def test_the_same_seed_makes_the_same_model(clip, tmp_path):
    contrast.create(tmp_path / "same", WORDS, seed=0)
    contrast.create(tmp_path / "other", WORDS, seed=1)
    assert storage.sha256_tree(tmp_path / "same") == storage.sha256_tree(clip)
    assert embed.digest(tmp_path / "other") != embed.digest(clip)
