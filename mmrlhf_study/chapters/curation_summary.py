"""What the curation chapter saw, in sentences that say only what the numbers show."""

from collections.abc import Mapping

import pandas as pd

from mmrlhf_study.chapters.intervals import wilson

MEASURES = {
    "coverage": "coverage of topic and class",
    "entropy": "entropy over clusters",
    "largest": "share of the largest combination",
}


def _shown(value: float, low: float, high: float) -> str:
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _counted(kinds: Mapping[str, int]) -> str:
    """`sign 60, chart 40`, the most first."""
    return ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items(), key=lambda item: (-item[1], item[0])))


def duplicates(plants: pd.DataFrame, wrong: Mapping[str, int], dropped: int) -> list[str]:
    """`plants`: rows planted, recall, low, high per kind; `wrong`: drops that join two scenes, per family."""
    if plants.empty:
        return ["No near-duplicates are planted in this pool, so recall and precision of dropping them are not known."]
    best, worst = (plants.loc[at] for at in (plants["recall"].idxmax(), plants["recall"].idxmin()))
    shares = [f"{row.planted} {_shown(row.recall, row.low, row.high)}" for row in (best, worst)]
    said = [f"Share of planted near-duplicates dropped: most of {shares[0]}, least of {shares[1]}."]
    joined = f"{sum(wrong.values())} of {dropped} drops join two different scenes"
    return [*said, f"{joined} ({_counted(wrong)})." if wrong else f"{joined}."]


def gate(kinds: Mapping[str, int], noticed: int, canaries: int) -> list[str]:
    """`kinds`: queries that leave at the gate, per kind of overlap."""
    said = [f"Queries that leave at the gate: {sum(kinds.values())}" + (f" ({_counted(kinds)})." if kinds else ".")]
    if kinds.get("exact"):
        said.append(f"Of these, with a picture that is in an evaluation set byte for byte: {kinds['exact']}.")
    if canaries:
        said.append(f"{noticed} of {canaries} canaries are noticed: {_shown(*wilson(noticed, canaries))}.")
    return said


def drawing(short: Mapping[str, tuple[int, int]], effect: pd.DataFrame) -> list[str]:
    """`short`: clusters that gave all they had, and clusters, per class; `effect` as `effects.intervals` gives it."""
    counts = ", ".join(f"{kind} {gone} of {there}" for kind, (gone, there) in short.items())
    said = [f"Clusters that gave all they had and less than the fullest: {counts}."]
    rows = effect.set_index(["measure", "drawn", "queries"]).sort_index()
    sizes = sorted(set(effect["queries"]))
    for measure, name in MEASURES.items():
        even, random = (rows.loc[measure, how, sizes[-1]] for how in ("even over clusters", "at random"))
        apart = "higher" if even.low > random.high else "lower" if even.high < random.low else "not told apart"
        said.append(f"Drawn evenly, {name} is {_shown(*even)}; at random {_shown(*random)}: {apart}.")
    if len(sizes) > 1:
        first, before, last = (rows.loc["coverage", "even over clusters", n]["mean"] for n in (sizes[0], *sizes[-2:]))
        said.append(
            f"Coverage is {first:.2f} at {sizes[0]:,} queries and {last:.2f} at {sizes[-1]:,}; the last step, from "
            f"{sizes[-2]:,}, adds {last - before:+.3f}."
        )
    return said


def attack(misled: Mapping[str, int], attacked: int, misleading: int, taken: int) -> list[str]:
    """`misled`: of `attacked` pictures those that mislead, by `random` change and by `attack`."""
    if not attacked:
        return []
    chance, aimed = (wilson(misled[how], attacked) for how in ("random", "attack"))
    apart = "the attack does more" if aimed.low > chance.high else "the two are not told apart"
    return [
        f"The attack misleads on {_shown(*aimed)} of {attacked} pictures, a random change of the same size on "
        f"{_shown(*chance)}: {apart}. Of the {taken} taken into the set, {misleading} mislead."
    ]
