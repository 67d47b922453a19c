"""Files appear whole or not at all, and never outside their folder."""

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrlhf_core.data import storage
from mmrlhf_core.data.names import NamesError, check_names


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def test_root_is_found_from_below_and_named_when_absent(project, monkeypatch, tmp_path_factory):
    (project / "notebooks/deep").mkdir()
    monkeypatch.chdir(project / "notebooks/deep")
    assert storage.root() == project
    assert storage.path("data/x") == project / "data/x"
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert storage.path(project / "x") == project / "x"
    with pytest.raises(ValueError, match=r"No dvc\.yaml at or above"):
        storage.root()


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    target = tmp_path / "value.txt"
    target.write_text("old")
    with contextlib.suppress(RuntimeError), storage.writing(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert names(tmp_path) == {"value.txt"}


def test_a_folder_is_replaced_whole(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "stale").touch()
    with storage.writing(target) as temporary:
        temporary.mkdir()
        (temporary / "fresh").touch()
        assert names(target) == {"stale"}
    assert names(target) == {"fresh"}
    assert names(tmp_path) == {"out"}


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with (
        pytest.raises(ValueError, match=r"Nothing was written for value\.txt"),
        storage.writing(tmp_path / "value.txt"),
    ):
        pass
    assert names(tmp_path) == set()


def test_a_full_disk_keeps_the_old_file(tmp_path):
    """A file size limit stands for the full disk: the write fails half way, with the system's own error."""
    import resource
    import signal

    target = tmp_path / "value.txt"
    target.write_text("old")
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            storage.write_text(target, "x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert target.read_text() == "old"
    assert names(tmp_path) == {"value.txt"}


@pytest.mark.parametrize("relative", ["", ".", "..", "../x", "a/../../x", "/etc/passwd", "a\0b"])
def test_inside_refuses_what_leads_out(tmp_path, relative):
    with pytest.raises(ValueError, match=r"inside|leads out"):
        storage.inside(tmp_path, relative)


def test_inside_follows_links(tmp_path):
    (tmp_path / "media").mkdir()
    os.symlink(tmp_path, tmp_path / "media/out")
    with pytest.raises(ValueError, match="leads out of media/"):
        storage.inside(tmp_path / "media", "out/x")


@given(st.lists(st.text("ab.é ", min_size=1, max_size=8).filter(lambda s: s.strip(".")), min_size=1, max_size=4))
def test_inside_stays_inside(parts):
    target = storage.inside("/tmp/media", "/".join(parts))
    assert Path("/tmp/media").resolve() in target.parents


def test_json_refuses_nan_and_names_a_broken_file(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        storage.write_json(tmp_path / "x.json", {"a": float("nan")})
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ValueError, match=r"x\.json is not readable JSON"):
        storage.read_json(tmp_path / "x.json")


def test_tree_hash_sees_names_and_contents_only(tmp_path):
    for folder, order in (("one", "ab"), ("two", "ba")):
        (tmp_path / folder).mkdir()
        for name in order:
            (tmp_path / folder / name).write_text(name)
    assert storage.sha256_tree(tmp_path / "one") == storage.sha256_tree(tmp_path / "two")
    (tmp_path / "two/a").rename(tmp_path / "two/c")
    assert storage.sha256_tree(tmp_path / "one") != storage.sha256_tree(tmp_path / "two")


def test_a_json_file_of_another_shape_is_named_with_its_key(tmp_path):
    file = tmp_path / "x.json"
    storage.write_json(file, {"a": 1})
    assert storage.read_object(file, ("a",)) == {"a": 1}
    for content, key in (('{"b": 1}', "'a'"), ("{}", "'a'"), ("null", "null"), ("[1]", "object"), ("[" * 100_000, "x")):
        file.write_text(content)
        with pytest.raises(ValueError, match=key) as caught:
            storage.read_object(file, ("a",))
        assert str(file) in str(caught.value)


def test_what_is_removed_is_gone_and_an_absent_target_is_no_error(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    for name in ("link", "folder", "folder"):
        storage.remove(tmp_path / name)
    assert names(tmp_path) == set()


def test_unknown_and_missing_names_come_with_the_nearest_one():
    check_names("file", ["beta", "w"], ["w", "beta"])
    for written, key in ((["betta", "w"], "'beta'"), (["w"], "'beta'"), (["w", "beta", "zzz"], "beta, w")):
        with pytest.raises(NamesError, match=key):
            check_names("file", written, ["w", "beta"])
