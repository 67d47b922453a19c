"""The engine against plain training and TRL: one table, ratio first, parity beside each row.

    python benchmarks/engine.py                          all parts and the peak memory of each row
    python benchmarks/engine.py --part "llava mini mix"  one part; the others are kept from the last run
    python benchmarks/engine.py --table                  only print the last table

The parity round warms up and compares every row, the plain ones too, with the plain computation in float64; then
`--rounds` rounds run all rows of a part in turn, and medians are shown. Steps are forward and backward over all pairs
of the part's queries, without optimizer and without tokenising or decoding pictures; the one-time cost of a cached
reference is a row of its own. On a machine with CUDA the parts named `gpu` are measured instead, in bf16 with
activation checkpointing, against fp32.

A row shows a ratio only when its values and its gradient are within the limit of its precision, or no further from
float64 than the plain row of its kind in the same precision. The second half is there for reward training: its
gradient is the difference of nearly equal gradients (at P=1000 R=130 K=4 with a picture 195 times smaller than what
it is the difference of), so the rounding of any fp32 run, 2.5e-7 for each response, becomes 5e-5. Both figures are
shown. Where bf16 is measured, the fastest tree row that passes is the one to choose.
"""

import argparse
import ctypes
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import engine_cases as cases
import torch
import transformers

from mmrlhf_core.data import storage

OUT = Path(__file__).parents[1] / "reports" / "benchmarks"
# Largest error against float64 of a log-probability per token, and of the gradient relative to its norm.
LIMITS = {"float32": 1e-5, "bfloat16": 5e-2}


def gradients(model: torch.nn.Module) -> list[torch.Tensor | None]:
    """The gradient of every parameter, None where there is none, on the CPU; then cleared."""
    parts = [None if p.grad is None else p.grad.cpu() for p in model.parameters()]
    model.zero_grad(set_to_none=True)
    return parts


def gradient_error(model: torch.nn.Module, truth: list[torch.Tensor | None]) -> float:
    """Distance of the model's gradients, which are then cleared, from true ones, relative to their norm."""
    off = size = 0.0
    for parameter, true in zip(model.parameters(), truth, strict=True):
        zero = torch.zeros_like(parameter, dtype=torch.float64)
        found = zero if parameter.grad is None else parameter.grad.double()
        true = zero if true is None else true.to(zero)
        off, size = off + float((found - true).square().sum()), size + float(true.square().sum())
    model.zero_grad(set_to_none=True)
    return (off / size) ** 0.5 if size else 0.0


def machine() -> dict:
    """What the numbers were measured on and with."""
    import trl

    cuda = torch.cuda.is_available()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return {
        "device": torch.cuda.get_device_name() if cuda else f"{names[0]} × {os.cpu_count()}",
        "threads": torch.get_num_threads(),
        "matrix product, 10⁹ operations per second": {name: round(_rate(name)) for name in ("float32", "bfloat16")},
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trl": trl.__version__,
    }


def _rate(dtype: str) -> float:
    """Fastest of eight square matrix products, in 10⁹ operations per second."""
    side = 8192 if torch.cuda.is_available() else 1024
    square = torch.randn(side, side, device=cases.DEVICE).to(getattr(torch, dtype))
    return max(2 * side**3 / timed(lambda: square @ square)[0] / 1e9 for _ in range(8))


def timed(step: Callable[[], object]) -> tuple[float, float, object]:
    """Wall seconds, CPU seconds and result of one call, with the device's work done."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def rows_of(case: cases.Case) -> dict[str, cases.Row]:
    """The rows of a part without TRL's."""
    ref = cases.reference_logps(case)
    rows = {
        "tree, cached reference": cases.Row(lambda: cases.tree_step(case, ref), case.model),
        "each response once, cached reference": cases.Row(lambda: cases.once_step(case, ref), case.model),
        "pair by pair, full logits, online reference": cases.Row(lambda: cases.pairs_step(case), case.model),
        "reward training: tree": cases.Row(lambda: cases.reward_tree(case, True), case.model),
        "reward training: each response once": cases.Row(lambda: cases.reward_once(case, True), case.model),
        "reward scoring: tree": cases.Row(lambda: cases.reward_tree(case, False), case.model),
        "reward scoring: each response once": cases.Row(lambda: cases.reward_once(case, False), case.model),
        "one-time: reference pass on the tree": cases.Row(lambda: cases.reference_row(case), case.model),
    }
    if case.part.bf16:
        low = cases.in_bf16(case)
        rows["tree, cached reference, bf16 weights"] = cases.Row(lambda: cases.tree_step(low, ref), low.model)
        rows["tree, cached reference, bf16 autocast"] = cases.Row(lambda: cases.autocast_step(case, ref), case.model)
    return rows


def trl_rows(case: cases.Case) -> dict[str, cases.Row]:
    """TRL's rows, one for each of its batch sizes."""
    kind = "online reference" if case.pictures else "precomputed reference"
    made = {n: cases.Trl(case, n) for n in case.part.trl_batches}
    return {f"TRL, {n} pairs a batch, {kind}": cases.Row(trl.step, trl.model, trl.logps) for n, trl in made.items()}


def kind_of(name: str) -> str:
    """What a row computes: preference, reward training, reward scoring, or one-time."""
    kind = name.split(":")[0]
    return kind if kind.startswith(("reward", "one-time")) else "preference"


def base_of(name: str) -> str:
    """The plain row of the same kind."""
    kind = kind_of(name)
    plain = {"one-time": name, "preference": "pair by pair, full logits, online reference"}
    return plain.get(kind, f"{kind}: each response once")


def tree_of(name: str) -> str:
    """The tree row of the same kind."""
    kind = kind_of(name)
    return f"{kind}: tree" if kind.startswith("reward") else "tree, cached reference"


def work(case: cases.Case, name: str) -> int:
    """Tokens through the text model, in forward passes: a training pass counts 3, a pass without gradient 1."""
    queries = [(len(query.prefix), [len(r) for r in query.responses], query.pairs) for query in case.queries]
    once = sum(prefix + length for prefix, lengths, _ in queries for length in lengths)
    pairs = sum(2 * prefix + lengths[w] + lengths[n] for prefix, lengths, graph in queries for w, n in graph)
    tokens = sum(query.size for query in case.queries) if "tree" in name else once if "once" in name else pairs
    if name.startswith(("reward scoring", "one-time")):
        return tokens
    return tokens * (4 if "online reference" in name else 3)


Outcome = tuple[float, torch.Tensor, list[torch.Tensor | None]]  # loss, values [M], gradients


def truths(case: cases.Case) -> dict[str, Outcome]:
    """What the plain computation of each kind gives in float64."""
    exact = cases.exact(case)
    steps = {
        "preference": lambda: cases.pairs_step(exact),
        "reward training": lambda: cases.reward_once(exact, True),
        "reward scoring": lambda: cases.reward_once(exact, False),
        "one-time": lambda: cases.reference_once(exact),
    }
    return {kind: (*step(), gradients(exact.model)) for kind, step in steps.items()}


def parity(case: cases.Case, rows: dict[str, cases.Row], truth: dict[str, Outcome]) -> dict[str, dict]:
    """Run every row once: its errors against the truth of its kind, and the seconds of this first run."""
    lengths = torch.tensor([len(query.responses[k]) for query, k in case.rows], device=cases.DEVICE)
    found = {}
    for name, row in rows.items():
        loss0, values0, gradients0 = truth[kind_of(name)]
        seconds, _, (loss, values) = timed(row.step)
        error = ((row.logps() if values is None else values).double() - values0.double()).abs()
        found[name] = {
            "first_run_seconds": seconds,
            "value": float(error.max()),
            "value_per_token": float((error if name.startswith("reward") else error / lengths).max()),
            "gradient": gradient_error(row.model, gradients0),
            "loss": abs(loss - loss0),
        }
    return found


def one_round(rows: dict[str, cases.Row], number: int) -> dict[str, tuple[float, float]]:
    """Every row once, beginning with another row each round: name → (wall, CPU) seconds."""
    names = list(rows)
    taken = {}
    for name in names[number % len(names) :] + names[: number % len(names)]:
        gc.collect()
        taken[name] = timed(rows[name].step)[:2]
    return taken


def measure(part: cases.Part, rounds: int) -> dict:
    """Times and parity of all rows of a part. Of TRL's batch sizes the faster one is timed."""
    case = cases.build(part)
    truth = truths(case)
    rows, trl = rows_of(case), {} if part.gpu else trl_rows(case)
    found = parity(case, rows | trl, truth)
    if trl:
        best = min(trl, key=lambda name: found[name]["first_run_seconds"])
        rows[best] = trl[best]
    gc.collect()
    gc.freeze()  # what lives now does not have to be looked through before every step
    rounds_taken = [one_round(rows, number) for number in range(rounds)]
    gc.unfreeze()
    report = {}
    for name in rows:
        wall, cpu = zip(*(taken[name] for taken in rounds_taken), strict=True)
        report[name] = {
            "seconds": statistics.median(wall),
            "cpu_seconds": statistics.median(cpu),
            "rounds": [round(seconds, 4) for seconds in wall],
            "work": work(case, name),
            "parity": found[name],
        }
    untimed = {name: found[name] for name in trl if name not in rows}
    dtype = str(case.model.dtype).removeprefix("torch.")
    sizes = {"parameters": sum(p.numel() for p in case.model.parameters()), "dtype": dtype, "rounds": rounds}
    return {**sizes, "tokens": len(case.tree.ids), "pairs": len(case.tree.pairs), "rows": report, "untimed": untimed}


def peak_memory(part: str, name: str) -> dict:
    """Memory of one row in this fresh process, in MiB: before the step, at its peak, and the difference.

    Models (with a reference where the row needs one) are held before. On CUDA it is the allocator's memory.
    """
    case = cases.build(cases.PARTS[part])
    rows = trl_rows(case) if name.startswith("TRL") else rows_of(case)
    gc.collect()
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated() / 2**20
        torch.cuda.reset_peak_memory_stats()
        rows[name].step()
        peak = torch.cuda.max_memory_allocated() / 2**20
        return {"before": round(before), "peak": round(peak), "step": round(peak - before)}
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    status = Path("/proc/self/status")
    before = int(status.read_text().split("VmRSS:")[1].split()[0]) / 1024
    Path("/proc/self/clear_refs").write_text("5")  # start the high-water mark anew
    rows[name].step()
    peak = int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return {"before": round(before), "peak": round(peak), "step": round(peak - before)}


def memory_of(part: str, name: str) -> dict:
    """Peak memory of one row of a part, in its own process; when that dies, the code it ended with."""
    run = subprocess.run([sys.executable, __file__, "--child", part, name], stdout=subprocess.PIPE, text=True)
    return {"ended": run.returncode} if run.returncode else json.loads(run.stdout.strip().splitlines()[-1])


def passes(row: dict, plain: dict, dtype: str) -> bool:
    """Whether a row shows a ratio: within the limit of its precision, or no further from the truth than `plain`."""
    limit = LIMITS["bfloat16" if "bf16" in row["name"] else dtype]
    return all(row["parity"][key] <= max(limit, plain["parity"][key]) for key in ("value_per_token", "gradient"))


def _line(row: dict, tree: dict, plain: dict, dtype: str) -> str:
    """One row of the table."""
    errors = row["parity"]
    found = f"{errors['value']:.1e} | {errors['gradient']:.1e} | {plain['parity']['gradient']:.1e} | "
    found += f"{errors['loss']:.1e}"
    seconds = f"{row['seconds']:.3f}"
    if not passes(row, plain, dtype):
        return f"| {row['name']} | parity failed | | | | {seconds} | {found} |"
    if row["name"].startswith("one-time"):
        return f"| {row['name']} | | | | | {seconds} | {errors['value']:.1e} | | | |"
    wall, amount = row["seconds"] / tree["seconds"], row["work"] / tree["work"]
    cpu = row["cpu_seconds"] / tree["cpu_seconds"]
    return f"| {row['name']} | {wall:.2f} | {cpu:.2f} | {amount:.2f} | {cpu / amount:.0%} | {seconds} | {found} |"


def _choice(rows: dict[str, dict], dtype: str) -> list[str]:
    """Which precision to take for a tree step, where bf16 was measured."""
    steps = [key for key in rows if key.startswith("tree, ")]
    passed = [key for key in steps if passes(rows[key], rows[base_of(key)], dtype)]
    if len(steps) < 2 or not passed:
        return []
    best = min(passed, key=lambda key: rows[key]["seconds"])
    return ["", f"Fastest tree step within its limit: {best}. bf16 weights train only with an optimizer that keeps "
            "them in fp32 too, as DeepSpeed's does."]  # fmt: skip


def _memory(memory: dict[str, dict]) -> list[str]:
    """The table of peak memory; a row whose process died says so."""
    if not memory:
        return []
    lines = ["", "| peak memory | step × tree | step, MiB | whole process, MiB |", "|---|---|---|---|"]
    tree = memory.get("tree, cached reference", {}).get("step")
    for key, row in sorted(memory.items()):
        if "ended" in row:
            lines.append(f"| {key} | not measured: its process ended with code {row['ended']} | | |")
        else:
            ratio = f"{row['step'] / tree:.2f}" if tree else ""
            lines.append(f"| {key} | {ratio} | {row['step']} | {row['peak']} |")
    return lines


def _part(name: str, result: dict) -> list[str]:
    """One part of the table."""
    order = sorted(result["rows"], key=lambda key: (key.startswith("reward"), tree_of(key), key != tree_of(key), key))
    rows = {key: {"name": key, **result["rows"][key]} for key in order}
    lines = [f"## {name}", ""]
    lines += [
        f"{result['parameters'] / 1e6:.1f} M parameters, {result['dtype']}, {result['tokens']} tokens in the tree, "
    ]
    lines[-1] += f"{result['pairs']} pairs, medians of {result['rounds']} rounds"
    head = (
        "row",
        "× tree, wall",
        "× tree, CPU time",
        "× token work",
        "of theory",
        "seconds",
        "Δ value",
        "Δ gradient",
        "the plain row's",
        "Δ loss",
    )
    lines += ["", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += [_line(row, rows[tree_of(key)], rows[base_of(key)], result["dtype"]) for key, row in rows.items()]
    lines += _choice(rows, result["dtype"])
    slower = [
        f"{key} ({row['first_run_seconds']:.1f} s in its first run)" for key, row in sorted(result["untimed"].items())
    ]
    lines += ["", "Not timed, because slower: " + "; ".join(slower)] if slower else []
    lines += _memory(result["memory"])
    return [*lines, ""]


def table(results: dict) -> str:
    """Everything measured, as Markdown."""
    lines = ["# Engine benchmark", "", "× tree is how many times longer a row takes than the tree row of its kind. "]
    lines[-1] += (
        "“Of theory” compares the ratio in CPU time, which other load disturbs least, with the ratio of token work. "
        "Δ is the distance from the plain computation in float64 (on a GPU fp32), of values the largest, of gradients "
        "relative to their norm; a row counts within its precision's limit "
    )
    limits = ", ".join(f"{name} {limit:.0e}" for name, limit in LIMITS.items())
    lines[-1] += f"({limits}; values per token) or when it is no further off than the plain row of its kind."
    lines += ["", *(f"- {key}: {value}" for key, value in sorted(results["machine"].items())), ""]
    for name, result in sorted(results["parts"].items()):
        lines += _part(name, result)
    return "\n".join(lines)


def _write(file: Path, results: dict) -> None:
    """Numbers, and the table of them as they are stored, after every step of the measurement."""
    storage.write_json(file, results)
    storage.write_text(file.with_suffix(".md"), table(storage.read_json(file)))


def main() -> None:
    """Measure what was asked for, keep the rest, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=list(cases.PARTS), action="append", help="default: all for this device")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--no-memory", action="store_true", help="skip the child processes that measure peak memory")
    parser.add_argument("--table", action="store_true", help="only print the last table")
    parser.add_argument("--child", nargs=2, metavar=("PART", "ROW"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.child:
        print(json.dumps(peak_memory(*chosen.child)))
        return
    cuda = torch.cuda.is_available()
    file = OUT / ("engine_gpu.json" if cuda else "engine_cpu.json")
    results = storage.read_json(file) if file.exists() else {"parts": {}}
    names = chosen.part or [name for name, part in cases.PARTS.items() if part.gpu == cuda]
    for name in [] if chosen.table else names:
        results["machine"] = machine()
        result = measure(cases.PARTS[name], chosen.rounds)
        wanted = [key for key in [*result["rows"], *result["untimed"]] if not key.startswith(("reward", "one-time"))]
        result["memory"] = results["parts"].get(name, {}).get("memory", {})
        results["parts"][name] = result
        _write(file, results)
        for key in [] if chosen.no_memory else wanted:
            result["memory"][key] = memory_of(name, key)
            _write(file, results)
    print(table(results))


if __name__ == "__main__":
    main()
