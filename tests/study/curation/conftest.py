"""A tiny open_clip model and a folder of small pictures."""

import pytest
from drawings import WORDS, drawing

from mmrlhf_study.curation import contrast


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """Folder of an untrained model."""
    folder = tmp_path_factory.mktemp("clip") / "model"
    contrast.create(folder, WORDS, seed=0)
    return folder


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    """Folder of 30 pictures, p00.png to p29.png."""
    folder = tmp_path_factory.mktemp("media")
    for number in range(30):
        drawing(number)[0].save(folder / f"p{number:02d}.png")
    return folder
