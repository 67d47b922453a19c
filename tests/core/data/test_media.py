"""Pictures are decoded, bounded in size, and named by content."""

import io

import pytest
from PIL import Image

from mmrlhf_core.data import media, storage
from mmrlhf_core.data.media import MediaError


def png(width, height, mode="1"):
    stream = io.BytesIO()
    Image.new(mode, (width, height)).save(stream, "PNG")
    return stream.getvalue()


def test_a_picture_that_came_as_bytes_is_stored_once_under_its_content(tmp_path):
    data = png(4, 4)
    picture = media.embedded(data)
    assert storage.sha256_bytes(data) == picture.digest
    assert picture.path == f"embedded/{picture.digest[:2]}/{picture.digest}.png"
    media.keep(tmp_path, [picture, picture._replace(data=None)])
    media.keep(tmp_path, [picture])
    assert media.stored(tmp_path, picture.path) == picture._replace(data=None)
    assert (tmp_path / picture.path).read_bytes() == data


@pytest.mark.parametrize("size", [(8001, 8000), (20_000, 10_000)])
def test_a_picture_over_the_limit_is_refused(size):
    with media.quiet(), pytest.raises(MediaError, match="picture too large"):
        media.embedded(png(*size))


def test_a_link_to_itself_and_an_endless_name_are_refused(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in ("loop", "x" * 5000):
        with pytest.raises(MediaError, match=r"path"):
            media.stored(tmp_path, path)
