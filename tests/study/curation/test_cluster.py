"""k-means: by hand, against a plain loop, and what it refuses."""

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
    monkeypatch.setattr(cluster, "BLOCK", 64)
    x = blobs(500, spread=0.8)
    start = x[np.arange(6) * 7].astype(np.float32)
    found = cluster.kmeans(x, 6, seed=0, iterations=5, start=start)
    centres, labels, distance2 = plain(x, start, 5)
    assert np.abs(found.centres - centres).max() < 1e-5
    assert (found.labels == labels).all()
    assert np.abs(found.distance2 - distance2).max() < 1e-5
    assert found.inertia[-1] == pytest.approx(distance2.sum(), rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(0, 10**6))
def test_every_point_sits_at_its_nearest_centre_and_inertia_falls(k, seed):
    x = blobs(60, 8, 4, seed, 1.0)
    found = cluster.kmeans(x, k, seed, iterations=30)
    distance2 = ((x.astype(np.float32)[:, None] - found.centres[None]) ** 2).sum(2)
    assert (distance2[np.arange(60), found.labels] <= distance2.min(1) + 1e-5).all()
    assert found.distance2 == pytest.approx(distance2.min(1), abs=1e-5)
    assert found.inertia[-1] <= found.inertia[0] + 1e-4
    assert found.sizes().sum() == 60


@pytest.fixture
def threads():
    """Any number of threads may be set; the one before comes back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_seed_decides_and_threads_and_memory_maps_do_not(tmp_path, threads):
    x = blobs(3000, 48, 30, spread=0.7)
    np.save(tmp_path / "x.npy", x)
    threads(1)
    first = cluster.kmeans(x, 20, seed=3)
    assert not same(first, cluster.kmeans(x, 20, seed=4))
    threads(2)
    assert same(first, cluster.kmeans(np.load(tmp_path / "x.npy", mmap_mode="r"), 20, seed=3))


def test_an_empty_cluster_is_filled_where_points_differ():
    x = np.array([[0, 1], [0, 1.1], [0, 1.2], [9, 1]], np.float32)
    found = cluster.kmeans(x, 2, seed=0, start=np.array([[0, 1], [-500, 0]], np.float32))
    assert sorted(found.sizes().tolist()) == [1, 3]
    assert found.inertia[-1] == pytest.approx(0.02, abs=1e-5)
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
    with pytest.raises(ValueError, match=r"6 .* 5 "):
        cluster.kmeans(x, 6, seed=0)
    cluster.check(x)
    for value, kind in ((np.nan, "NaN or infinity"), (np.inf, "NaN or infinity"), (0, "length zero")):
        bad = x.copy()
        bad[3] = value
        with pytest.raises(ValueError, match=f"Point 3 has {kind}"):
            cluster.check(bad, block=2)
    with pytest.raises(ValueError, match=r"float64 of shape \(5, 16\)"):
        cluster.check(x.astype(np.float64))
