"""A folder in the published form: pairs about pictures and clips of noise."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from mmrlhf_study.tools import exports


def write(folder: Path, questions: int, categories: Sequence[str], words: Sequence[str]) -> None:
    """All pairs of two to four answers to each question, with reasons; the category `video` has clips of two frames."""
    rng, rows = np.random.default_rng(0), []
    for number in range(questions):
        category = categories[number % len(categories)]
        clip, place = category == "video", f"{category}/{number}"
        names = [f"{place}/{frame}.png" for frame in range(2)] if clip else [f"{place}.png"]
        for name in names:
            (folder / "media" / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(folder / "media" / name)
        texts = [" ".join(rng.choice(words, rng.integers(2, 9))) for _ in range(2 + number % 3)]
        media = {"video": place} if clip else {"image": names[0]}
        for a, b in combinations(range(len(texts)), 2):
            reasons = {"chosen_reason": f"answer {a} is right .", "rejected_reason": f"answer {b} is wrong ."}
            head = {"id": f"q{number}", "prompt": "is it red", **media}
            rows.append({**head, "chosen": texts[a], "rejected": texts[b], **reasons})
    exports.write_lines(folder / "dpo_pairs.jsonl", rows)
