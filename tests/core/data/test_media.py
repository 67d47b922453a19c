"""Pictures are decoded, bounded in size, and named by content."""

import io

import pytest
from PIL import Image

from mmrlhf_core.data import media
from mmrlhf_core.data.media import MediaError


def png(width, height, mode="1"):
    stream = io.BytesIO()
    Image.new(mode, (width, height)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("size", [(8001, 8000), (20_000, 10_000)])
def test_a_picture_over_the_limit_is_refused(size):
    with media.quiet(), pytest.raises(MediaError, match="picture too large"):
        media.decode(io.BytesIO(png(*size)), "large.png")


def test_a_link_to_itself_and_an_endless_name_are_refused(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in ("loop", "x" * 5000):
        with pytest.raises(MediaError, match=r"path"):
            media.stored(tmp_path, path)
