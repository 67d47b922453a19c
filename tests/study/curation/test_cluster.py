"""k-means: by hand, against a plain loop and against faiss, and what it refuses."""

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrlhf_study.curation import cluster


def blobs(n=600, d=16, k=6, seed=0, spread=0.15):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((k, d))[np.arange(n) % k] + spread * rng.standard_normal((n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)


def plain(x, centres, passes):
    """Lloyd's algorithm as one would write it on the board."""
    x, centres = x.astype(np.float64), centres.astype(np.float64)
    for _ in range(passes):
        labels = ((x[:, None] - centres[None]) ** 2).sum(2).argmin(1)
        centres = np.stack([x[labels == j].mean(0) for j in range(len(centres))])
    distance2 = ((x[:, None] - centres[None]) ** 2).sum(2)
    return centres, distance2.argmin(1), distance2.min(1)


def test_four_points_by_hand():
    # From (0,1) and (10,1): the left two points have mean (0.5, 1), the right two (11, 1); 2·0.25 + 2·1 = 2.5.
    x = np.array([[0, 1], [1, 1], [10, 1], [12, 1]], np.float32)
    found = cluster.kmeans(x, 2, seed=0, start=x[[0, 2]])
    assert found.centres.tolist() == [[0.5, 1], [11, 1]]
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert found.inertia[-1] == pytest.approx(2.5, abs=1e-4)


def test_agrees_with_the_plain_loop_across_blocks(monkeypatch):
    monkeypatch.setattr(cluster, "LARGE", 64)
    x = blobs(500, spread=0.8)
    start = x[np.arange(6) * 7].astype(np.float32)
    found = cluster.kmeans(x, 6, seed=0, iterations=5, start=start)
    centres, labels, distance2 = plain(x, start, 5)
    assert np.abs(found.centres - centres).max() < 1e-5
    assert (found.labels == labels).all()
    assert np.abs(found.distance2 - distance2).max() < 1e-5
    assert found.inertia[-1] == pytest.approx(distance2.sum(), rel=1e-5)


def test_inertia_of_faiss_and_of_fewer_bits_within_a_thousandth():
    x = blobs(4000, 64, 10, spread=0.4)
    start = x[:10].astype(np.float32)
    theirs = faiss.Kmeans(64, 10, niter=10, max_points_per_centroid=10**9, min_points_per_centroid=1)
    theirs.train(x.astype(np.float32), init_centroids=start)
    wanted = theirs.index.search(x.astype(np.float32), 1)[0].sum()
    for dtype in (torch.float32, torch.bfloat16, torch.int8):
        ours = cluster.kmeans(x, 10, seed=0, iterations=10, start=start, dtype=dtype)
        true = ((x.astype(np.float32) - ours.centres[ours.labels]) ** 2).sum()
        assert true == pytest.approx(wanted, rel=1e-3)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(0, 10**6), st.sampled_from([torch.float32, torch.bfloat16, torch.int8]))
def test_every_point_sits_at_its_nearest_centre_and_inertia_falls(k, seed, dtype):
    x = blobs(60, 8, 4, seed, 1.0)
    found = cluster.kmeans(x, k, seed, iterations=30, dtype=dtype)
    distance2 = ((x.astype(np.float32)[:, None] - found.centres[None]) ** 2).sum(2)
    assert (distance2[np.arange(60), found.labels] <= distance2.min(1) + 1e-5).all()
    assert found.distance2 == pytest.approx(distance2.min(1), abs=1e-5)
    slack = 1e-4 if dtype == torch.float32 else 60 * 0.02  # while it runs, fewer bits are off by about 2 * 2^-7
    assert all(b <= a + slack for a, b in zip(found.inertia, found.inertia[1:], strict=False))
    assert found.sizes().sum() == 60
    assert (found.sizes() > 0).all()


def test_same_seed_same_bytes_and_memory_mapped_input(tmp_path):
    np.save(tmp_path / "x.npy", blobs())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    one, two = cluster.kmeans(blobs(), 6, seed=3), cluster.kmeans(mapped, 6, seed=3)
    assert one.centres.tobytes() == two.centres.tobytes()
    assert one.labels.tobytes() == two.labels.tobytes()
    assert one.labels.tobytes() != cluster.kmeans(mapped, 6, seed=4).labels.tobytes()


@pytest.mark.filterwarnings("error")
def test_read_only_and_shared_memory_give_the_same_values(tmp_path):
    np.save(tmp_path / "x.npy", blobs())
    for mode in ("r", "c"):
        mapped = np.load(tmp_path / "x.npy", mmap_mode=mode)
        for rows, values in cluster.blocks(mapped, 256):
            assert (values.numpy() == blobs()[rows].astype(np.float32)).all()


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(0, 10**6))
def test_the_best_score_and_its_place(k, seed):
    scores = torch.randn(50, k, generator=torch.Generator().manual_seed(seed)).bfloat16().float()
    found, place = cluster._best(scores.clone())
    assert (scores[torch.arange(50), torch.from_numpy(place).long()] == scores.amax(1)).all()
    assert found == pytest.approx(scores.amax(1).numpy(), rel=2**-14)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(0, 10**6), st.floats(1e-3, 1e3), st.floats(-10, 10))
def test_whole_numbers_find_a_centre_nearly_as_near_whatever_the_scale_and_the_mean(k, seed, scale, shift):
    x = (blobs(300, 16, 5, seed, 0.5).astype(np.float32) + np.float32(shift)) * np.float32(scale)
    centres, whole = torch.from_numpy(x[:k].copy()), cluster._whole(x)
    whole.take(slice(0, 300), torch.from_numpy(x.copy()))
    true = ((x[:, None] - x[None, :k]) ** 2).sum(2)
    (found,) = cluster._wholly(whole, centres)
    rows, distance2, label = found
    off = 4 * 16 * (np.abs(x - x.mean(0)).max() / cluster.MOST) * np.abs(x - x.mean(0)).max()  # D steps each
    assert (rows.start, rows.stop) == (0, 300)
    assert (true[np.arange(300), label] <= true.min(1) + off).all()
    assert np.abs(distance2 - true.min(1)).max() <= off


def test_fewer_bits_are_for_many_points_on_a_device_with_units_for_them(monkeypatch):
    monkeypatch.setattr(cluster, "device", lambda: torch.device("cpu"))
    full, half, whole = torch.float32, torch.bfloat16, torch.int8
    for units, n, wanted in (
        (["avx512_bf16"], cluster.MANY, (half, half)),
        (["avx512_bf16", "avx512_vnni"], cluster.MANY, (half, whole)),
        (["avx512_bf16", "avx512_vnni"], cluster.MANY - 1, (full, full)),
        (["amx_bf16", "amx_int8"], cluster.MANY, (half, whole)),
        (["avx512_vnni"], cluster.MANY, (full, whole)),
        ([], 10 * cluster.MANY, (full, full)),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda units=units: dict.fromkeys(units, True))
        assert (cluster.precision(n), cluster.fastest(n)) == wanted
    monkeypatch.setattr(cluster, "device", lambda: torch.device("cuda"))
    assert cluster.fastest(cluster.MANY) == half


def test_an_empty_cluster_takes_the_farthest_point():
    x = np.array([[0, 1], [0, 1.1], [0, 1.2], [9, 1]], np.float32)
    found = cluster.kmeans(x, 2, seed=0, start=np.array([[0, 1], [-500, 0]], np.float32))
    assert found.labels.tolist() == [0, 0, 0, 1]
    assert found.centres[1].tolist() == [9, 1]


def test_fewer_different_points_than_centres_leaves_clusters_empty():
    found = cluster.kmeans(np.ones((5, 3), np.float16), 3, seed=0)
    assert sorted(found.sizes().tolist()) == [0, 0, 5]
    assert found.inertia[-1] == pytest.approx(0, abs=1e-5)


def test_a_sample_fits_the_centres_and_all_points_get_a_label():
    x = blobs(600)
    found = cluster.kmeans(x, 6, seed=1, sample=100)
    assert len(found.labels) == 600
    whole = ((x.astype(np.float32)[:, None] - found.centres[None]) ** 2).sum(2)
    assert (found.labels == whole.argmin(1)).all()


def test_nearest_centres_in_order():
    x, centres = blobs(50), blobs(9, seed=5).astype(np.float32)
    wanted = ((x.astype(np.float32)[:, None] - centres[None]) ** 2).sum(2).argsort(1)[:, :3]
    assert (cluster.nearest(x, centres, 3) == wanted).all()


def test_refusals():
    x = blobs(5)
    with pytest.raises(ValueError, match="6 centres were asked of 5 points"):
        cluster.kmeans(x, 6, seed=0)
    cluster.check(x)
    for value, kind in ((np.nan, "NaN or infinity"), (np.inf, "NaN or infinity"), (0, "length zero")):
        bad = x.copy()
        bad[3] = value
        with pytest.raises(ValueError, match=f"Point 3 has {kind}"):
            cluster.check(bad, block=2)
    with pytest.raises(ValueError, match=r"float64 of shape \(5, 16\)"):
        cluster.check(x.astype(np.float64))
