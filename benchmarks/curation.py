"""Curation at scale: k-means against scikit-learn, near-duplicates against flat search, growth with N.

    python benchmarks/curation.py kmeans       1 M × 512, 100 centres, all points: alternating rounds, medians
    python benchmarks/curation.py duplicates   1 M × 512 with planted near-duplicates, and a part of it by flat search
    python benchmarks/curation.py growth       both for 10,000 to 4 million rows, or for the sizes given
    python benchmarks/curation.py table        only make the table and the figure again

Embeddings are drawn once: 400 directions of unequal weight and spread on the sphere, float16, kept in
scratch/benchmarks/. Each measurement is a separate process. Wall and CPU seconds are recorded, because other work on
the machine lengthens only the wall time. After each measurement the results (reports/benchmarks/curation.json), their
table (.md) and their figure (.png) are written, from whatever has been measured.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import matplotlib.pyplot as plt
import numpy as np
import sklearn
import torch
from sklearn.cluster import KMeans

from mmrlhf_core.data import storage
from mmrlhf_study.curation import cluster, dedup

OUT = "reports/benchmarks/curation.json"
DATA = "scratch/benchmarks"
D, K, UPDATES, FEW, THREADS = 512, 100, 20, 5, 2
PLANTED, COSINE, PROBES = 0.01, 0.95, 3  # share of rows that are near-duplicates of another, threshold, probes
SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000, 2_000_000, 4_000_000)
TARGET = 10_000_000
TASKS = ("kmeans", "duplicates")
OWN_LOOP = "k-means of ours compares in"  # recorded on the machine by versions with an update loop of their own

EARLIER = (
    "**These figures are of an earlier version** with its own loops. k-means and the near-duplicate search now use "
    "faiss and have not been measured again. For k-means expect the time of the row faiss, and more memory: a float32 "
    "copy of the points is twice the data. So what was asked of its speed and memory no longer holds."
)


def twins(n: int) -> int:
    """How many of `n` rows are planted: the last ones are near-duplicates of the first ones, in order."""
    return int(n * PLANTED)


def draw(n: int, file: Path, seed: int = 0) -> None:
    """Write [n, D] float16 embeddings of length one."""
    rng, planted = np.random.default_rng(seed), twins(n)
    centres = rng.standard_normal((400, D), np.float32)
    spread = rng.uniform(0.6, 1.2, (400, 1)).astype(np.float32)
    weight = 1 / np.arange(1, 401) ** 0.7
    which = rng.choice(400, n - planted, p=weight / weight.sum())
    x = np.lib.format.open_memmap(file, "w+", np.float16, (n, D))
    for start in range(0, n - planted, 4096):
        part = which[start : min(start + 4096, n - planted)]
        rows = centres[part] + spread[part] * rng.standard_normal((len(part), D), np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        x[start : start + len(part)] = torch.from_numpy(rows).half().numpy()
    base = x[:planted].astype(np.float32)
    away = rng.standard_normal((planted, D), np.float32)
    away -= (away * base).sum(1, keepdims=True) * base
    cosine = rng.uniform(COSINE + 0.005, 0.995, (planted, 1)).astype(np.float32)
    x[n - planted :] = cosine * base + np.sqrt(1 - cosine**2) * away / np.linalg.norm(away, axis=1, keepdims=True)
    x.flush()


def embeddings(n: int) -> np.ndarray:
    """The embeddings of this size, memory-mapped; drawn when they are not there yet."""
    file = storage.path(DATA) / f"embeddings-{n}.npy"
    if not file.is_file():
        with storage.writing(file) as temporary:
            draw(n, temporary)
    return np.load(file, mmap_mode="c")


def timed(step: Callable[[], object]) -> tuple[dict[str, float], object]:
    """Wall and CPU seconds of one call, and its result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = step()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}, result


def inertia(x: np.ndarray, centres: np.ndarray) -> float:
    """Sum of squared distances to the nearest centre, in float64 over blocks."""
    total = 0.0
    for start in range(0, len(x), 4096):
        block = torch.from_numpy(x[start : start + 4096]).float().numpy()
        score = (block @ centres.T - (centres**2).sum(1) / 2).max(1)
        total += float(((block**2).sum(1) - 2 * score).sum(dtype=np.float64))
    return total


def engines(x: np.ndarray, wide: np.ndarray) -> dict[str, Callable[[int], np.ndarray]]:
    """Ways to run so many updates from the same centres and label all points; each returns its centres."""
    start = np.array(x[:K], np.float32)

    def plain(updates: int) -> np.ndarray:
        return KMeans(K, init=start, n_init=1, max_iter=updates, tol=0, algorithm="lloyd").fit(wide).cluster_centers_

    return {
        "ours": lambda updates: cluster.kmeans(x, K, 0, updates, start=start).centres,
        "scikit-learn": plain,
    }


def kmeans(n: int, turn: int) -> dict:
    """One round: what each engine takes, and the inertia of its centres; the first one changes by `turn`.

    A whole run is divided by its updates; `more` is what each update takes after the first `FEW`. One update before
    them is not counted, because allocating memory makes it slower.
    """
    x, rows = embeddings(n), {}
    wide = torch.from_numpy(x).float().numpy()
    ways = list(engines(x, wide).items())
    turn %= len(ways)
    for name, way in ways[turn:] + ways[:turn]:
        way(1)
        few, _ = timed(lambda way=way: way(FEW))
        whole, centres = timed(lambda way=way: way(UPDATES))
        rows[name] = {clock: spent / UPDATES for clock, spent in whole.items()} | {"inertia": inertia(x, centres)}
        rows[name] |= {f"{clock}_more": (whole[clock] - few[clock]) / (UPDATES - FEW) for clock in whole}
    return rows


def flat(x: np.ndarray, queries: int) -> tuple[dict[str, float], set]:
    """Seconds of faiss flat range search for the last `queries` rows, and the pairs (lower, higher row) it finds."""
    index = faiss.IndexFlatIP(D)
    for start in range(0, len(x), 100_000):
        index.add(torch.from_numpy(x[start : start + 100_000]).float().numpy())
    asked = np.array(x[-queries:], np.float32)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    seconds, (limits, _, found) = timed(lambda: index.range_search(asked, COSINE))
    rows = np.repeat(np.arange(len(x) - queries, len(x)), np.diff(limits.astype(np.int64)))
    return seconds, {(min(i, j), max(i, j)) for i, j in zip(rows.tolist(), found.tolist(), strict=True) if i != j}


def duplicates(n: int, queries: int) -> dict:
    """Near-duplicates of all `n` rows, and flat search for some of them: its time is linear in their number."""
    x = embeddings(n)
    seconds, pairs = timed(lambda: dedup.near_pairs(x, COSINE, PROBES, 0))
    found = set(map(tuple, pairs.tolist()))
    spent, truth = flat(x, queries)
    return {
        "n": n,
        **seconds,
        "planted": twins(n),
        "planted_found": sum((i, n - twins(n) + i) in found for i in range(twins(n))),
        "pairs": len(found),
        "flat_queries": queries,
        "flat_pairs": len(truth),
        "flat_pairs_found": len(truth & found),
        **{f"flat_{clock}_all": value / queries * n for clock, value in spent.items()},
    }


def peak() -> int:
    """Most memory this process has held, the mapped file included, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def growth(n: int, task: str) -> dict:
    """One task at one size: seconds, and memory above what the libraries took before."""
    x, before = embeddings(n), peak()
    if task == "kmeans":
        seconds, _ = timed(lambda: cluster.kmeans(x, K, 0, UPDATES))
    else:
        seconds, pairs = timed(lambda: dedup.near_pairs(x, COSINE, PROBES, 0))
    row = {"n": n, **seconds, "memory": peak() - before, "data": x.nbytes}
    if task == "duplicates":
        keys = set((pairs[:, 0] * n + pairs[:, 1]).tolist())
        row["recall"] = sum(i * n + n - twins(n) + i in keys for i in range(twins(n))) / twins(n)
    return row


# ---------------------------------------------------------------- table and figure


def fitted(rows: list[dict], field: str, n: int = TARGET) -> tuple[float, float]:
    """(exponent, value at n) of the power law through the three largest sizes."""
    last = sorted(rows, key=lambda row: row["n"])[-3:]
    slope, start = np.polyfit(np.log([row["n"] for row in last]), np.log([row[field] for row in last]), 1)
    return float(slope), float(np.exp(start + slope * np.log(n)))


def kmeans_lines(part: dict) -> list[str]:
    """The engines side by side, medians over rounds."""
    rounds = part["rounds"]
    middle = {
        name: {field: statistics.median(turn[name][field] for turn in rounds) for field in rounds[0][name]}
        for name in ("ours", "faiss", "scikit-learn")
        if name in rounds[0]
    }
    ours = middle["ours"]
    lines = [
        f"## k-means, {part['n']:,} × {D}, {K} centres, all points",
        "",
        f"Seconds an update: each of the updates {FEW + 1} to {UPDATES}; and a whole run of {UPDATES} with the labels "
        f"of all points, divided by {UPDATES}. Medians of {len(rounds)} rounds, in each of which an engine "
        "makes one update first that is not counted. Asked: per update at least as fast as faiss and 3 × as fast as "
        "scikit-learn, inertia within 0.1 %.",
        "",
        "| engine | one more | its CPU | × ours | × ours, CPU | whole run | its CPU | × ours | × ours, CPU | inertia |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in middle.items():
        cells = [name]
        for wall, cpu in (("wall_more", "cpu_more"), ("wall", "cpu")):
            cells += [f"{row[wall]:.3f}", f"{row[cpu]:.3f}"]
            cells += [f"{row[wall] / ours[wall]:.2f}", f"{row[cpu] / ours[cpu]:.2f}"]
        lines.append(f"| {' | '.join(cells)} | {row['inertia'] / ours['inertia'] - 1:+.5%} |")
    return [*lines, ""]


def duplicates_lines(row: dict) -> list[str]:
    """Our search against flat search."""
    ratio, cpu = row["flat_wall_all"] / row["wall"], row["flat_cpu_all"] / row["cpu"]
    all_found = f"{row['flat_pairs_found']:,} of {row['flat_pairs']:,}"
    return [
        f"## Near-duplicates, {row['n']:,} × {D}, cosine {COSINE}, {PROBES} probes",
        "",
        f"Flat search of {row['flat_queries']:,} rows, times {row['n'] / row['flat_queries']:,.0f}. Asked: recall of "
        "planted pairs at least 0.99, at least 2 × as fast.",
        "",
        "| search | seconds | CPU seconds | × ours | × ours, CPU | planted pairs found | pairs of the rows asked for |",
        "|---|---|---|---|---|---|---|",
        f"| ours | {row['wall']:.1f} | {row['cpu']:.1f} | 1 | 1 | {row['planted_found'] / row['planted']:.4f} of "
        f"{row['planted']:,} | {all_found} |",
        f"| faiss flat | {row['flat_wall_all']:,.0f} | {row['flat_cpu_all']:,.0f} | {ratio:.0f} | {cpu:.0f} | "
        f"| {row['flat_pairs']:,} |",
        "",
    ]


def growth_lines(curves: dict[str, list[dict]]) -> list[str]:
    """Each task at each size, and what ten million rows would take."""
    lines = [
        f"## Growth, {K} centres and {UPDATES} updates; near-duplicates at cosine {COSINE}",
        "",
        "Asked: memory of k-means under 2 × the data.",
        "",
        "| task | N | seconds | CPU seconds | memory, GiB | × the data | planted pairs found |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, rows in curves.items():
        for row in rows:
            memory = f"{row['memory'] / 2**30:.2f} | {row['memory'] / row['data']:.2f}"
            recall = f"{row['recall']:.4f}" if "recall" in row else ""
            lines.append(f"| {task} | {row['n']:,} | {row['wall']:.1f} | {row['cpu']:.1f} | {memory} | {recall} |")
    lines.append("")
    for task, rows in curves.items():
        if len(rows) >= 3:
            slope, wall = fitted(rows, "wall")
            memory = fitted(rows, "memory")[1]
            lines.append(
                f"- {task}: through the three largest sizes, seconds grow as N^{slope:.2f}; {TARGET:,} rows would take "
                f"{wall / 60:.1f} minutes and {memory / 2**30:.1f} GiB (extrapolated, not measured)."
            )
    return [*lines, ""]


def curves_of(results: dict) -> dict[str, list[dict]]:
    """The rows of each task, smallest size first."""
    found = results.get("growth", {})
    return {task: sorted(found[task].values(), key=lambda row: row["n"]) for task in TASKS if task in found}


def table(results: dict) -> str:
    """Everything measured, as Markdown."""
    lines = [
        "# Curation benchmark",
        "",
        *([EARLIER, ""] if OWN_LOOP in results["machine"] else []),
        *(f"- {key}: {value}" for key, value in sorted(results["machine"].items())),
        "",
    ]
    lines += kmeans_lines(results["kmeans"]) if "kmeans" in results else []
    lines += duplicates_lines(results["duplicates"]) if "duplicates" in results else []
    lines += growth_lines(curves_of(results)) if "growth" in results else []
    return "\n".join(lines)


def draw_curve(curves: dict[str, list[dict]], target: Path) -> None:
    """Seconds and memory against N."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
    for (task, rows), colour in zip(curves.items(), ("#0b6e6e", "#c8553d"), strict=False):
        n = [row["n"] for row in rows]
        axes[0].plot(n, [row["wall"] for row in rows], marker="o", color=colour, label=f"{task}, wall")
        axes[0].plot(n, [row["cpu"] for row in rows], marker=".", linestyle=":", color=colour, label=f"{task}, CPU")
        axes[1].plot(n, [row["memory"] / 2**30 for row in rows], marker="o", color=colour, label=task)
    data = sorted({(row["n"], row["data"] / 2**30) for rows in curves.values() for row in rows})
    axes[1].plot(*zip(*data, strict=True), color="#9fb0c0", linestyle="--", label="the data itself")
    for axis, label in zip(axes, ("seconds", "GiB at most, mapped data included"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel=f"embeddings × {D}", ylabel=label)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    with storage.writing(target) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})
    plt.close(figure)


# ---------------------------------------------------------------- running


def machine() -> dict:
    """What the numbers were measured on and with."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    versions = {"torch": torch.__version__, "faiss": faiss.__version__, "scikit-learn": sklearn.__version__}
    return {
        "device": f"{names[0] if names else platform.machine()} × {os.cpu_count()}",
        "threads": THREADS,
        "python": platform.python_version(),
        **versions,
    }


def write(results: dict) -> None:
    """Results, table and figure."""
    file = storage.path(OUT)
    storage.write_json(file, results)
    storage.write_text(file.with_suffix(".md"), table(results))
    if "growth" in results:
        draw_curve(curves_of(results), file.with_suffix(".png"))


def apart(*words: object) -> dict:
    """Run one measurement in a process of its own."""
    print(*words, flush=True)
    command = [sys.executable, __file__, "one", *map(str, words)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def one(task: str, n: str, more: str) -> None:
    """The measurement itself: its result is the last line printed."""
    torch.set_num_threads(THREADS)
    faiss.omp_set_num_threads(THREADS)
    ways = {"kmeans": kmeans, "duplicates": duplicates, "draw": lambda n, _: embeddings(n).shape}
    print(json.dumps(ways[task](int(n), int(more or 0)) if task in ways else growth(int(n), more)))


def measure(part: str, results: dict, chosen: argparse.Namespace) -> None:
    """Add one part to `results`, written after each measurement."""
    if part == "kmeans":
        results[part] = {"n": chosen.n, "rounds": []}
        for turn in range(chosen.rounds):
            results[part]["rounds"].append(apart(part, chosen.n, turn))
            write(results)
    elif part == "duplicates":
        results[part] = apart(part, chosen.n, chosen.queries)
        write(results)
    else:
        for n in map(int, chosen.words or SIZES):
            apart("draw", n, "")  # what drawing takes is not the measurement's memory
            for task in TASKS:
                results.setdefault(part, {}).setdefault(task, {})[str(n)] = apart(part, n, task)
                write(results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("kmeans", "duplicates", "growth", "table", "one"))
    parser.add_argument("words", nargs="*", help="sizes, for growth")
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--queries", type=int, default=2_000)
    chosen = parser.parse_args()
    if chosen.part == "one":
        return one(*chosen.words)
    results = storage.read_json(OUT) if storage.path(OUT).is_file() else {}
    if chosen.part != "table":
        results["machine"] = machine()
        measure(chosen.part, results, chosen)
    write(results)
    print(table(results))


if __name__ == "__main__":
    main()
