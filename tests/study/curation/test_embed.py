"""Shards: right, resumable, shared between processes, and honest about what could not be embedded."""

import json
import shutil
import time
from types import SimpleNamespace

import numpy as np
import processes
import pytest
import torch
from accelerate import PartialState
from PIL import Image

from mmrlhf_core.data import records, storage
from mmrlhf_core.data.records import Query
from mmrlhf_study.curation import embed

PATHS = [f"p{i:02d}.png" for i in range(30)]


@pytest.fixture(scope="module")
def encoder(clip):
    return embed.load(str(clip))


@pytest.fixture(scope="module")
def whole(encoder, media, tmp_path_factory):
    """Shards of 4 made in one go."""
    out = tmp_path_factory.mktemp("whole") / "shards"
    embed.embed(encoder, PATHS, media, out, workers=0, size=4, batch=4)
    return out


def test_rows_are_the_model_s_own_embeddings(encoder, media, whole):
    rows, reasons = embed.read(PATHS, whole, size=4)
    images = torch.stack([encoder.transform(Image.open(media / path)) for path in PATHS])
    with torch.no_grad():
        wanted = encoder.model.encode_image(images, normalize=True).numpy()
    assert rows.shape == (30, 128)
    assert (rows.dtype, reasons) == (np.float16, {})
    assert isinstance(rows, np.memmap)
    assert np.abs(rows - wanted).max() < 2e-3
    assert np.abs(np.linalg.norm(rows.astype(np.float32), axis=1) - 1).max() < 2e-3


def test_worker_processes_change_nothing(encoder, media, whole, tmp_path):
    embed.embed(encoder, PATHS, media, tmp_path / "out", workers=2, size=4, batch=4)
    embed.read(PATHS, tmp_path / "out", size=4)
    embed.read(PATHS, whole, size=4)
    assert storage.sha256_tree(tmp_path / "out") == storage.sha256_tree(whole)


def work(clip, media, out, threads, count=1):
    """What one process of `count` does."""
    torch.set_num_threads(threads)
    embed.embed(embed.load(str(clip)), PATHS, media, out, workers=0, size=4, batch=4)
    assert PartialState().num_processes == count


@pytest.mark.xdist_group("processes")
def test_a_killed_run_goes_on_to_the_same_shards(server, encoder, clip, media, whole, tmp_path):
    out = tmp_path / "out"
    process = processes.start(server, work, clip, media, out, torch.get_num_threads())
    while not (out / "000001.json").is_file() and process.is_alive():
        time.sleep(0.001)
    process.kill()
    process.join()
    for late in ("000005", "000006", "000007"):  # when the run was too quick to be met halfway
        (out / f"{late}.npy").unlink(missing_ok=True)
    made = {file.name: file.stat().st_mtime_ns for file in out.glob("00000[01].*")}
    embed.embed(encoder, PATHS, media, out, workers=0, size=4, batch=4)
    assert len(made) == 4
    assert {name: (out / name).stat().st_mtime_ns for name in made} == made
    for folder in (out, whole):
        embed.read(PATHS, folder, size=4)
    assert storage.sha256_tree(out) == storage.sha256_tree(whole)


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_two_processes_share_the_shards(server, clip, media, whole, tmp_path):
    """With what `torchrun` puts into the environment; `accelerate launch --cpu` starts one process, never two."""
    given = (clip, media, tmp_path / "out", torch.get_num_threads(), 2)
    workers = [processes.start(server, work, *given, **place) for place in processes.places(2)]
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    for folder in (tmp_path / "out", whole):
        embed.read(PATHS, folder, size=4)
    assert storage.sha256_tree(tmp_path / "out") == storage.sha256_tree(whole)


def test_each_process_makes_only_its_own(encoder, media, tmp_path, monkeypatch):
    second = SimpleNamespace(process_index=1, num_processes=3, is_local_main_process=False, is_main_process=False)
    second.wait_for_everyone = lambda: None
    monkeypatch.setattr(embed, "PartialState", lambda cpu: second)
    embed.embed(encoder, PATHS, media, tmp_path / "out", workers=0, size=4, batch=4)
    assert sorted(file.name for file in (tmp_path / "out").glob("*.npy")) == ["000001.npy", "000004.npy", "000007.npy"]
    with pytest.raises(embed.EmbedError, match=r"000000.npy is not finished"):
        embed.read(PATHS, tmp_path / "out", size=4)


def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


def test_damage_other_pictures_and_other_weights_are_made_again(encoder, media, whole, tmp_path):
    out = copy(whole, tmp_path)
    wrong = np.load(out / "000002.npy")
    np.save(out / "000002.npy", wrong + np.float16(0.5))
    other = [*PATHS[:8], *PATHS[12:]]
    embed.embed(encoder, PATHS, media, out, workers=0, size=4, batch=4)
    assert (np.load(out / "000002.npy") == wrong).all()
    embed.embed(encoder, other, media, out, workers=0, size=4, batch=4)
    assert not (out / "000007.npy").exists()
    assert (embed.read(other, out, size=4)[0] == embed.read(PATHS, whole, size=4)[0][[*range(8), *range(12, 30)]]).all()
    key = json.loads((out / "000000.json").read_text())["key"]
    embed.embed(encoder._replace(digest="other"), other, media, out, workers=0, size=4, batch=4)
    assert json.loads((out / "000000.json").read_text())["key"] != key


def test_a_shard_of_another_width_is_refused(whole, tmp_path):
    out = copy(whole, tmp_path)
    (out / embed.ALL).unlink(missing_ok=True)
    np.save(out / "000003.npy", np.ones((4, 7), np.float16))
    with pytest.raises(embed.EmbedError, match=r"000003.npy .*float16 .*\(4, 7\).*float16 .*\(4, 128\)"):
        embed.read(PATHS, out, size=4)


def test_unreadable_pictures_are_named_and_take_nothing_with_them(encoder, media, whole, tmp_path):
    bad = shutil.copytree(media, tmp_path / "media")
    (bad / "p05.png").write_bytes((media / "p05.png").read_bytes()[:60])
    (bad / "p06.png").unlink()
    for i in range(8, 12):
        (bad / f"p{i:02d}.png").write_text("no picture")
    embed.embed(encoder, PATHS, bad, tmp_path / "out", workers=0, size=4, batch=4)
    rows, reasons = embed.read(PATHS, tmp_path / "out", size=4)
    assert sorted(reasons) == ["p05.png", "p06.png", "p08.png", "p09.png", "p10.png", "p11.png"]
    assert all(reason.startswith("unreadable picture: ") for reason in reasons.values())
    good = [i for i, path in enumerate(PATHS) if path not in reasons]
    assert (rows[good] == embed.read(PATHS, whole, size=4)[0][good]).all()
    assert not rows[[5, 6, 8, 9, 10, 11]].any()


def test_an_embedding_that_is_not_finite_is_a_reject(encoder, media, tmp_path):
    def broken(images, normalize):
        values = encoder.model.encode_image(images, normalize=normalize)
        values[1] = torch.nan
        return values

    stub = encoder._replace(model=SimpleNamespace(encode_image=broken))
    embed.embed(stub, PATHS[:3], media, tmp_path / "out", workers=0)
    rows, reasons = embed.read(PATHS[:3], tmp_path / "out")
    assert reasons == {"p01.png": "embedding is not finite"}
    assert np.isfinite(rows).all()


def test_no_readable_picture_at_all(encoder, tmp_path):
    embed.embed(encoder, ["a.png"], tmp_path, tmp_path / "out", workers=0)
    with pytest.raises(embed.EmbedError, match="None of the 1 pictures"):
        embed.read(["a.png"], tmp_path / "out")


def test_views_of_clips_are_first_and_last():
    clip = Query("c", "p", "video", ("f/1.png", "f/2.png", "f/3.png"))
    rows = [clip, Query("a", "p", "image", ("a.png",)), Query("b", "q", "image", ("a.png",))]
    assert embed.pictures(rows) == ["a.png", "f/1.png", "f/3.png"]


def test_a_folder_that_is_no_model(tmp_path):
    with pytest.raises(embed.EmbedError, match=r"open_clip_config.json"):
        embed.load(str(tmp_path))
    for content in ("null", '{"model_cfg": null, "preprocess_cfg": {}}', '{"model_cfg": {}}'):
        (tmp_path / embed.CONFIG).write_text(content)
        with pytest.raises(embed.EmbedError, match=r"model_cfg.*preprocess_cfg"):
            embed.load(str(tmp_path))


@pytest.mark.parametrize("note", ["null", "[]", '{"key": 1}'])
def test_a_shard_with_a_damaged_note_is_made_again(encoder, media, whole, tmp_path, note):
    out = copy(whole, tmp_path)
    (out / "000002.json").write_text(note)
    with pytest.raises(embed.EmbedError, match=r"000002.npy is not finished"):
        embed.read(PATHS, out, size=4)
    embed.embed(encoder, PATHS, media, out, workers=0, size=4, batch=4)
    assert json.loads((out / "000002.json").read_text()) == json.loads((whole / "000002.json").read_text())


def test_command_line(clip, media, tmp_path, capsys):
    rows = [Query(path, "p", "image", (path,)) for path in PATHS]
    records.write(tmp_path / "queries.parquet", rows)
    words = [str(tmp_path / "queries.parquet"), str(media), str(clip), str(tmp_path / "out"), "--workers", "0"]
    assert embed.main(words) == 0
    assert embed.read(PATHS, tmp_path / "out")[0].shape == (30, 128)
    assert embed.main([str(tmp_path / "none.parquet"), *words[1:]]) == 2
    assert "is not there" in capsys.readouterr().err
