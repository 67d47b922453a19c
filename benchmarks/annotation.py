"""Annotation at the paper's scale: reading 120,000 published pairs, agreement of 30,000 judgements.

    python benchmarks/annotation.py read        120,000 pairs in the published form: seconds and peak memory
    python benchmarks/annotation.py agreement   30,000 judgements, every table with 1,000 bootstrap samples
    python benchmarks/annotation.py table       only make the table again

Rows are drawn with the lengths of the published ones (better responses about 416 characters, worse ones 213, reasons
50); media are taken by name. Each measurement is five fresh processes, one after the other; medians and the slowest are
kept, wall and CPU seconds both, since other work on the machine lengthens only the first. After each part the results
(reports/benchmarks/annotation.json) and their table (.md) are written.
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
from pathlib import Path
from random import Random

import numpy as np

from mmrlhf_core.data import published, storage
from mmrlhf_study.annotation import agreement
from mmrlhf_study.annotation.records import Judgement
from mmrlhf_study.chapters import annotation as chapter
from mmrlhf_study.tools import exports

OUT = "reports/benchmarks/annotation.json"
PAIRS, JUDGEMENTS, DRAWS, ROUNDS = 120_000, 30_000, 1000, 5
WORDS = [f"word{number}" for number in range(3000)]
ASKED = {"read": "under 10 s and 1 GB on 2 cores", "agreement": "under 20 s"}


def words(rng: Random, characters: int) -> str:
    """A text of about this many characters."""
    return " ".join(rng.choices(WORDS, k=max(characters // 9, 1)))


def draw_pairs(file: Path) -> None:
    """Published rows: four responses per query, all six pairs of them."""
    rng, rows = Random(0), []
    while len(rows) < PAIRS:
        query = len(rows) // 6
        said = [words(rng, length) for length in (420, 410, 220, 200)]
        why = [words(rng, 52) for _ in said]
        head = {"id": f"{query:06d}", "image": f"long/{query:06d}.jpg", "prompt": words(rng, 120)}
        for i in range(4):
            for j in range(i + 1, 4):
                pair = {"chosen": said[i], "rejected": said[j], "chosen_reason": why[i], "rejected_reason": why[j]}
                rows.append(head | pair)
    exports.write_lines(file, rows[:PAIRS])


def draw_judgements() -> tuple[list[Judgement], dict[str, str]]:
    """Three judgements of each of four responses to 2,500 queries, by 50 annotators."""
    rng, rows = np.random.default_rng(0), []
    for query in range(JUDGEMENTS // 12):
        people = rng.choice(50, 3, replace=False)
        for response in range(4):
            truth = rng.integers(1, 6, 3)
            for person in people:
                scores = np.clip(np.rint(truth + rng.normal(0, 0.8, 3)), 1, 5).astype(int).tolist()
                rows.append(Judgement(f"q{query}", f"q{query}/{response}", f"ann-{person:02d}", *scores))
    classes = ("long", "short", "mcq", "safety", "video")
    return rows, {f"q{query}": classes[query % 5] for query in range(JUDGEMENTS // 12)}


def measure(part: str, file: str) -> dict:
    """One measurement in this process."""
    if part == "read":
        begun, cpu = time.perf_counter(), time.process_time()
        found = published.read(file)
        counts = {"queries": len(found.queries), "responses": len(found.responses), "pairs": len(found.pairs)}
    else:
        rows, category = draw_judgements()
        begun, cpu = time.perf_counter(), time.process_time()
        table = agreement.frame(rows)
        counts = {
            "judgements": len(rows),
            "intervals": len(chapter.agreement_table(table, category, DRAWS, 0))
            + len(chapter.annotator_table(table, DRAWS, 0)),
        }
    taken = {"wall": time.perf_counter() - begun, "cpu": time.process_time() - cpu}
    return counts | taken | {"mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def rounds(part: str) -> dict:
    """Medians and worst of some fresh processes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.jsonl"
        if part == "read":
            draw_pairs(file)
        command = [sys.executable, __file__, "one", part, str(file)]
        runs = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(ROUNDS)]
        size = round(file.stat().st_size / 2**20) if part == "read" else 0
    kept = {name: value for name, value in runs[0].items() if name not in ("wall", "cpu", "mib")}
    for name in ("wall", "cpu", "mib"):
        values = [run[name] for run in runs]
        kept |= {name: round(statistics.median(values), 2), f"{name}_most": round(max(values), 2)}
    return kept | ({"file_mib": size} if size else {})


def machine() -> dict:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.machine())
    return {"processor": name, "cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}


def table(results: dict) -> str:
    """Everything measured, as Markdown."""
    lines = ["# Annotation benchmark", "", *(f"- {key}: {value}" for key, value in sorted(results["machine"].items()))]
    lines += ["", f"Medians of {ROUNDS} fresh processes, the slowest in brackets.", ""]
    lines += ["| part | seconds | CPU seconds | peak, MiB | asked | what it held |", "|---|---|---|---|---|---|"]
    clocks = ("wall", "cpu", "mib")
    for part, row in sorted(results["parts"].items()):
        cells = [f"{row[name]:.2f} ({row[f'{name}_most']:.2f})" for name in clocks]
        rest = {key: value for key, value in sorted(row.items()) if key.removesuffix("_most") not in clocks}
        held = ", ".join(f"{key.replace('_', ' ')} {value:,}" for key, value in rest.items())
        lines.append("| " + " | ".join([part, *cells, ASKED[part], held]) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["read", "agreement", "table", "one"])
    parser.add_argument("rest", nargs="*")
    chosen = parser.parse_args()
    if chosen.part == "one":
        print(json.dumps(measure(*chosen.rest)))
        return
    results = storage.read_json(OUT) if storage.path(OUT).is_file() else {"parts": {}}
    if chosen.part != "table":
        results["parts"][chosen.part] = rounds(chosen.part)
        results["machine"] = machine()
        storage.write_json(OUT, results)
    storage.write_text(storage.path(OUT).with_suffix(".md"), table(results))
    print(table(results))


if __name__ == "__main__":
    main()
