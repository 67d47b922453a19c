"""The paper's Tables 4 and 5 (arXiv 2502.10391) as data, and what follows from their own rows.

Numbers here are the paper's; nothing measured here is among them.
"""

import pandas as pd

from mmrlhf_study.evaluation.reward_bench import PUBLISHED_COUNTS

SOURCE_4, SOURCE_5 = "MM-RLHF (arXiv 2502.10391), Table 4", "MM-RLHF (arXiv 2502.10391), Table 5"
COLUMNS_4 = (
    "LLaVA-OV-7B", "LLaVA-Critic, point-wise", "LLaVA-Critic, pair-wise", "GPT-4o", "no critique", "raw reasons",
    "MM-RLHF-Reward", "given critiques",
)  # fmt: skip
ROWS_4 = {  # ACC and ACC+ on MM-RLHF-RewardBench, as printed
    "mcq": ((0.14, 0.00), (0.38, 0.10), (0.23, 0.00), (0.69, 0.20), (0.90, 0.80), (0.83, 0.70), (0.93, 0.70), (1, 1)),
    "long": ((0.11, 0.00), (0.49, 0.20), (0.54, 0.30), (0.95, 0.90), (0.70, 0.40), (0.92, 0.80), (1, 1), (1, 1)),
    "short": ((0.29, 0.20), (0.38, 0.20), (0.24, 0.10), (0.56, 0.40), (0.79, 0.60), (0.68, 0.40), (0.71, 0.50), (1, 1)),
    "safety": ((0.41, 0.00), (0.62, 0.17), (0.28, 0.17), (0.72, 0.33), (0.69, 0.33), (0.69, 0.17), (0.66, 0.17),
               (0.69, 0.17)),
    "video": ((0.32, 0.10), (0.40, 0.20), (0.52, 0.20), (0.80, 0.60), (0.70, 0.60), (0.80, 0.60), (0.92, 0.80),
              (0.92, 0.90)),
    "all": ((0.24, 0.07), (0.45, 0.17), (0.35, 0.15), (0.74, 0.50), (0.75, 0.50), (0.79, 0.57), (0.85, 0.67),
            (0.93, 0.87)),
}  # fmt: skip
ROWS_5 = {  # VL-RewardBench, percent: general, hallucination, reasoning, average as printed
    "VITA-1.5": (18.55, 8.93, 22.11, 16.48),
    "SliME-8B": (7.23, 27.09, 18.60, 19.04),
    "DeepSeek-VL2": (29.70, 23.80, 50.90, 34.80),
    "Phi-3.5-vision": (28.00, 22.40, 56.60, 35.67),
    "LLaVA-OneVision-7B": (32.20, 20.10, 57.10, 36.47),
    "Molmo-7B-D": (31.10, 31.80, 56.20, 39.70),
    "Pixtral-12B": (35.60, 25.90, 59.90, 40.47),
    "Qwen2-VL-72B-Instruct": (38.10, 32.80, 58.00, 42.97),
    "NVLM-D-72B": (38.90, 31.60, 62.00, 44.17),
    "InternVL2-26B": (39.30, 36.90, 60.80, 45.67),
    "GPT-4o-mini (2024-07-18)": (41.70, 34.50, 58.20, 44.80),
    "Claude-3.5-Sonnet (2024-06-22)": (43.40, 55.00, 62.30, 53.57),
    "GPT-4o (2024-08-06)": (49.10, 67.60, 70.50, 62.40),
    "Gemini-1.5-Pro (2024-09-24)": (50.80, 72.50, 64.20, 62.50),
    "MM-RLHF-Reward-7B": (45.04, 50.45, 57.55, 50.15),
}


def table_4() -> pd.DataFrame:
    """Table 4 in long form: category, model, acc, acc_plus."""
    rows = [(row, model, *map(float, cell)) for row, cells in ROWS_4.items()
            for model, cell in zip(COLUMNS_4, cells, strict=True)]  # fmt: skip
    return pd.DataFrame(rows, columns=["category", "model", "acc", "acc_plus"])


def recomputed() -> pd.DataFrame:
    """The overall row of each column of Table 4 from its category rows, beside what is printed, and whether it follows.

    ACC is over 170 pairs, so a mean of rounded rows is open by 0.005, as the printed one is. ACC+ counts whole ids (46:
    ten per category, six of safety), which the rounded rows give back exactly.
    """
    long, size = table_4(), pd.DataFrame(PUBLISHED_COUNTS, index=["ids", "pairs"]).T
    rows = []
    for model, mine in long[long.category != "all"].groupby("model", sort=False):
        known = size.loc[mine.category]
        acc = float((mine.acc.to_numpy() * known.pairs.to_numpy()).sum() / known.pairs.sum())
        ids = int((mine.acc_plus.to_numpy() * known.ids.to_numpy()).round().sum())
        printed = long[(long.category == "all") & (long.model == model)].iloc[0]
        plus = ids / int(known.ids.sum())
        follows = abs(acc - printed.acc) < 0.0101, abs(plus - printed.acc_plus) < 0.0051
        rows.append((model, acc, printed.acc, follows[0], ids, plus, printed.acc_plus, follows[1]))
    names = ["model", "acc", "acc_printed", "acc_follows", "ids", "acc_plus", "acc_plus_printed", "acc_plus_follows"]
    return pd.DataFrame(rows, columns=names)


def table_5() -> pd.DataFrame:
    """Table 5 with the plain mean of its three categories beside the printed average."""
    made = pd.DataFrame(ROWS_5, index=["general", "hallucination", "reasoning", "printed"]).T
    return made.assign(mean=made[["general", "hallucination", "reasoning"]].mean(axis=1))
