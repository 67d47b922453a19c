"""Curation at scale: k-means against faiss and scikit-learn, near-duplicates against flat search, growth with N.

    python benchmarks/curation.py kmeans             1 M × 512, 100 centres, all points: rounds in turn, medians
    python benchmarks/curation.py duplicates         1 M × 512 with planted near-duplicates
    python benchmarks/curation.py growth 10000 …     time and memory of both for these N
    python benchmarks/curation.py table              print what was measured and draw the curve

Embeddings are drawn: 400 directions of unequal weight and spread on the sphere, float16, in a memory-mapped file. Each
measurement is a process of its own; wall and CPU seconds are kept, since other work on the machine lengthens only the
first. Results stay in reports/benchmarks/curation.json.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import sklearn
import torch
from sklearn.cluster import KMeans

from mmrlhf_core import storage
from mmrlhf_core.curation import cluster, dedup

OUT = "reports/benchmarks/curation.json"
D, K, UPDATES, THREADS = 512, 100, 5, 2
PLANTED, COSINE, PROBES = 0.01, 0.95, 3  # share of rows that are near-duplicates of another, threshold, probes
TARGET = 10_000_000


def draw(n: int, file: Path, seed: int = 0) -> int:
    """Write [n, D] float16 embeddings, the last `PLANTED` share near-duplicates of the first rows; returns how many."""
    rng, twins = np.random.default_rng(seed), int(n * PLANTED)
    centres = rng.standard_normal((400, D), np.float32)
    weight = 1 / np.arange(1, 401) ** 0.7
    x = np.lib.format.open_memmap(file, "w+", np.float16, (n, D))
    for start in range(0, n - twins, 50_000):
        stop = min(start + 50_000, n - twins)
        which = rng.choice(400, stop - start, p=weight / weight.sum())
        rows = centres[which] + rng.uniform(0.6, 1.2, 400).astype(np.float32)[which, None] * rng.standard_normal(
            (stop - start, D), np.float32
        )
        x[start:stop] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    base = x[:twins].astype(np.float32)
    away = rng.standard_normal((twins, D), np.float32)
    away -= (away * base).sum(1, keepdims=True) * base
    cosine = rng.uniform(COSINE + 0.005, 0.995, (twins, 1)).astype(np.float32)
    x[n - twins :] = cosine * base + np.sqrt(1 - cosine**2) * away / np.linalg.norm(away, axis=1, keepdims=True)
    x.flush()
    return twins


def timed(step: Callable[[], object]) -> tuple[float, float, object]:
    """Wall seconds, CPU seconds and result of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = step()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def inertia(x: np.ndarray, centres: np.ndarray) -> float:
    """Sum of squared distances to the nearest centre, in float64 over blocks."""
    total = 0.0
    for start in range(0, len(x), 100_000):
        block = x[start : start + 100_000].astype(np.float32)
        score = (block @ centres.T - (centres**2).sum(1) / 2).max(1)
        total += float(((block**2).sum(1) - 2 * score).sum(dtype=np.float64))
    return total


def engines(x: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
    """Ways to run `UPDATES` updates from the same centres and label all points; each returns its centres."""
    wide, start = x.astype(np.float32), np.array(x[:K], np.float32)

    def theirs() -> np.ndarray:
        fitted = faiss.Kmeans(D, K, niter=UPDATES, max_points_per_centroid=len(x))
        fitted.train(wide, init_centroids=start)
        fitted.index.search(wide, 1)
        return fitted.centroids

    def plain() -> np.ndarray:
        return KMeans(K, init=start, n_init=1, max_iter=UPDATES, tol=0, algorithm="lloyd").fit(wide).cluster_centers_

    return {
        "ours": lambda: cluster.kmeans(x, K, 0, UPDATES, start=start).centres,
        "faiss": theirs,
        "scikit-learn": plain,
    }


def kmeans(n: int, rounds: int, folder: Path) -> dict:
    """Median seconds per update of each engine over rounds in turn, and its inertia against ours."""
    draw(n, folder / "x.npy")
    x = np.load(folder / "x.npy", mmap_mode="r")
    rows: dict[str, dict] = {name: {"wall": [], "cpu": []} for name in engines(x[:200])}
    ways = engines(x)
    for number in range(rounds):
        names = list(ways)
        for name in names[number % 3 :] + names[: number % 3]:
            wall, cpu, centres = timed(ways[name])
            rows[name]["wall"].append(round(wall / UPDATES, 3))
            rows[name]["cpu"].append(round(cpu / UPDATES, 3))
            rows[name]["inertia"] = inertia(x, centres)
    return {"n": n, "engines": rows}


def exact(x: np.ndarray, queries: int) -> tuple[float, float, set]:
    """Wall and CPU seconds of faiss flat range search per query, and its pairs (query row, other row)."""
    index = faiss.IndexFlatIP(D)
    index.add(np.asarray(x, np.float32))
    asked = np.array(x[-queries:], np.float32)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    wall, cpu, (limits, _, found) = timed(lambda: index.range_search(asked, COSINE))
    rows = np.repeat(np.arange(len(x) - queries, len(x)), np.diff(limits.astype(np.int64)))
    return (
        wall / queries,
        cpu / queries,
        {(min(i, j), max(i, j)) for i, j in zip(rows.tolist(), found.tolist(), strict=True) if i != j},
    )


def duplicates(n: int, queries: int, folder: Path) -> dict:
    """Near-duplicates of all n rows, against flat search of some of them (its time is linear in queries)."""
    twins = draw(n, folder / "x.npy")
    x = np.load(folder / "x.npy", mmap_mode="r")
    wall, cpu, pairs = timed(lambda: dedup.near_pairs(x, COSINE, PROBES, 0))
    found = set(map(tuple, pairs.tolist()))
    flat_wall, flat_cpu, truth = exact(x, queries)
    planted = sum((i, n - twins + i) in found for i in range(twins))
    return {
        "n": n,
        "wall": wall,
        "cpu": cpu,
        "planted": twins,
        "planted_found": planted,
        "pairs": len(found),
        "flat_queries": queries,
        "flat_pairs": len(truth),
        "flat_pairs_found": len(truth & found),
        "flat_wall_all": flat_wall * n,
        "flat_cpu_all": flat_cpu * n,
    }


def memory() -> int:
    """Most memory this process has held, the mapped file included, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def growth(n: int, what: str, folder: Path) -> dict:
    """One task at one size: seconds, and memory above what the libraries took before."""
    twins = draw(n, folder / "x.npy") if not (folder / "x.npy").exists() else int(n * PLANTED)
    x = np.load(folder / "x.npy", mmap_mode="r")
    before = memory()
    if what == "kmeans":
        wall, cpu, _ = timed(lambda: cluster.kmeans(x, K, 0, UPDATES))
        return {"n": n, "wall": wall, "cpu": cpu, "memory": memory() - before, "data": x.nbytes}
    wall, cpu, pairs = timed(lambda: dedup.near_pairs(x, COSINE, PROBES, 0))
    keys = set((pairs[:, 0] * n + pairs[:, 1]).tolist())
    hits = sum(i * n + n - twins + i in keys for i in range(twins))
    return {"n": n, "wall": wall, "cpu": cpu, "memory": memory() - before, "data": x.nbytes, "recall": hits / twins}


def machine() -> dict:
    """What the numbers were measured on and with."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    versions = {"torch": torch.__version__, "faiss": faiss.__version__, "scikit-learn": sklearn.__version__}
    return {
        "cpu": f"{names[0]} × {os.cpu_count()}",
        "threads": THREADS,
        "python": platform.python_version(),
        **versions,
    }


def keep(key: str, value: dict) -> None:
    """Put one measurement into the results."""
    file = storage.path(OUT)
    results = storage.read_json(file) if file.is_file() else {}
    storage.write_json(file, results | {"machine": machine(), key: value})


def apart(*words: object) -> dict:
    """Run one measurement in a process of its own."""
    command = [sys.executable, __file__, "one", *map(str, words)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def one(words: list[str]) -> None:
    """The measurement itself: its result is the last line printed."""
    torch.set_num_threads(THREADS)
    faiss.omp_set_num_threads(THREADS)
    what, n, more, folder = words[0], int(words[1]), words[2], Path(words[3])
    tasks = {"kmeans": lambda: kmeans(n, int(more), folder), "duplicates": lambda: duplicates(n, int(more), folder)}
    print(json.dumps(tasks[what]() if what in tasks else growth(n, more, folder)))


def fitted(rows: list[dict], field: str, n: int = TARGET) -> tuple[float, float]:
    """(exponent, value at n) of the power law through the three largest sizes."""
    last = sorted(rows, key=lambda row: row["n"])[-3:]
    slope, start = np.polyfit(np.log([row["n"] for row in last]), np.log([row[field] for row in last]), 1)
    return float(slope), float(np.exp(start + slope * np.log(n)))


def table() -> None:
    """Print the results, ratio first, and draw the curve."""
    results = storage.read_json(OUT)
    print(json.dumps(results["machine"]))
    if "kmeans" in results:
        rows = results["kmeans"]["engines"]
        ours = {clock: statistics.median(rows["ours"][clock]) for clock in ("wall", "cpu")}
        for name, row in rows.items():
            wall, cpu = statistics.median(row["wall"]), statistics.median(row["cpu"])
            ratio = f"{wall / ours['wall']:.2f} × ours (CPU {cpu / ours['cpu']:.2f} ×)"
            off = row["inertia"] / rows["ours"]["inertia"] - 1
            print(f"k-means, {name}: {ratio}, {wall:.2f} s and {cpu:.2f} CPU s per update, inertia {off:+.5%}")
    if "duplicates" in results:
        row = results["duplicates"]
        print(
            f"near-duplicates: flat search takes {row['flat_wall_all'] / row['wall']:.0f} × as long "
            f"({row['wall']:.0f} s, CPU {row['cpu']:.0f} s); recall of planted pairs "
            f"{row['planted_found'] / row['planted']:.4f}, of all {row['flat_pairs_found'] / row['flat_pairs']:.4f}"
        )
    curves = {
        what: sorted(results.get(f"growth {what}", {}).values(), key=lambda row: row["n"])
        for what in ("kmeans", "duplicates")
    }
    for what, rows in curves.items():
        for row in rows:
            print(
                f"{what} {row['n']:>9,}: {row['wall']:.1f} s, CPU {row['cpu']:.1f} s, "
                f"memory {row['memory'] / row['data']:.2f} × data"
            )
        if len(rows) >= 3:
            for clock in ("wall", "cpu"):
                slope, value = fitted(rows, clock)
                print(f"{what}: {clock} grows as N^{slope:.2f}; 10 M would take {value / 60:.0f} min")
    draw_curve(curves)


def draw_curve(curves: dict[str, list[dict]]) -> None:
    """reports/benchmarks/curation.png: CPU seconds and memory against N."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
    for (what, rows), colour in zip(curves.items(), ("#0b6e6e", "#c8553d"), strict=True):
        n = [row["n"] for row in rows]
        axes[0].plot(n, [row["wall"] for row in rows], marker="o", color=colour, label=f"{what}, wall")
        axes[0].plot(n, [row["cpu"] for row in rows], marker=".", linestyle=":", color=colour, label=f"{what}, CPU")
        axes[1].plot(n, [row["memory"] / 2**30 for row in rows], marker="o", color=colour, label=what)
    if curves["kmeans"]:
        data = [(row["n"], row["data"] / 2**30) for row in curves["kmeans"]]
        axes[1].plot(*zip(*data, strict=True), color="#9fb0c0", linestyle="--", label="the data itself")
    for axis, label in zip(axes, ("seconds", "GiB at most, mapped data included"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel="embeddings × 512", ylabel=label)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    with storage.writing("reports/benchmarks/curation.png") as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("kmeans", "duplicates", "growth", "table", "one"))
    parser.add_argument("words", nargs="*")
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queries", type=int, default=2_000)
    chosen = parser.parse_args()
    if chosen.part == "one":
        return one(chosen.words)
    with tempfile.TemporaryDirectory() as folder:
        if chosen.part == "kmeans":
            keep("kmeans", apart("kmeans", chosen.n, chosen.rounds, folder))
        elif chosen.part == "duplicates":
            keep("duplicates", apart("duplicates", chosen.n, chosen.queries, folder))
        elif chosen.part == "growth":
            for size in map(int, chosen.words):
                for what in ("kmeans", "duplicates"):
                    file = storage.path(OUT)
                    old = storage.read_json(file).get(f"growth {what}", {}) if file.is_file() else {}
                    keep(f"growth {what}", old | {str(size): apart("growth", size, what, folder)})
                (Path(folder) / "x.npy").unlink()
    table()


if __name__ == "__main__":
    main()
