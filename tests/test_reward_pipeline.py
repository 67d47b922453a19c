"""Published rows through the whole reward pipeline with a miniature model: the scores mean nothing, the plumbing all.

Rows are read, gathered, trained on, scored, counted, and written as a scores file that is read back.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import reward_world as world
from PIL import Image

from mmrlhf_core.data import annotated, published, records
from mmrlhf_core.models import reward
from mmrlhf_core.rollout import score
from mmrlhf_core.training import reward as reward_training
from mmrlhf_core.training import reward_dataset
from mmrlhf_study.annotation import campaign
from mmrlhf_study.evaluation import reward_bench


def row(name, chosen, rejected, prompt="what is shown ?", **media):
    reasons = {"chosen_reason": f"{chosen[:5]} is right.", "rejected_reason": "Wrong, <|im_end|> and more."}
    return {"id": name, "prompt": prompt, "chosen": chosen, "rejected": rejected, **media, **reasons}


ROWS = [
    row("a", "a red circle", "a <image> blue square", image="long/1.png"),
    row("a", "a red circle", "nothing", image="long/1.png"),
    row("a", "nothing", "a <image> blue square", image="long/1.png"),
    row("b", "B", "A\n", image="mcq/2.png"),
    row("c", "it jumps", "it sits", video="video/clip_1"),
    row("c", "it jumps", "", video="video/clip_1"),
]


def draw(folder, lines):
    """A picture of noise for every one that is named, three frames for a clip."""
    for number, name in enumerate(dict.fromkeys(line.get("image") or line["video"] for line in lines)):
        noise = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        frames = [name] if Path(name).suffix else [f"{name}/{k}.png" for k in range(3)]
        for k, frame in enumerate(frames):
            (folder / frame).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.roll(noise, k, 0)).save(folder / frame, "PNG" if frame.endswith("png") else None)


def test_no_row_is_lost_from_file_to_scores(tmp_path):
    lines, file = ROWS, tmp_path / "mm_reward_bench.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    draw(tmp_path / "media", lines)

    read = published.read(file, tmp_path / "media", 0.0)
    pairs = [replace(pair, split="train") for pair in read.pairs]
    campaign.write(tmp_path / "annotations", campaign.from_pairs(read.queries, read.responses, pairs), pairs)
    data = annotated.read(tmp_path / "annotations")
    assert [pair for one in data for pair in one.pairs] == pairs
    assert [published.original_id(pair.query) for pair in pairs] == [line["id"] for line in lines]

    base = world.fresh()
    asked = reward_dataset.PromptCache(base.processor, reward.form_of(base.processor), tmp_path / "media", 2)
    examples = reward_dataset.RewardExamples(data, "raw", asked)
    assert sum(len(examples[n].query.pairs) for n in range(len(data))) == len(lines)
    made = reward_training.train(base, examples, reward_training.RewardSettings(2, 2, 1e-3), 1).model
    reward.save(tmp_path / "reward", made)
    model = reward.load(tmp_path / "reward")

    done = score.score(model, score.works(data, tmp_path / "media", 2), score.CritiqueDecoding(max_new_tokens=3), 8)
    assert [(one.query, one.response) for one in done] == [(r.query, r.id) for q in data for r in read.responses
                                                           if r.query == q.query.id]  # fmt: skip
    margins = score.margins(done, pairs)
    records.write(tmp_path / "margins.parquet", margins)
    assert len(records.read(tmp_path / "margins.parquet", score.Margin)) == len(lines)
    assert {one.model for one in margins} == {model.digest}

    reasons = {name: text for one in data for name, text in one.reasons("raw").items()}
    given = score.score(model, score.works(data, tmp_path / "media", 2, reasons))
    assert all(one.given and one.critiques == (reasons[one.response],) for one in given)
    assert {pair.chosen for pair in pairs} <= reasons.keys()

    items = reward_bench.read(file)
    scores = reward_bench.of_margins(items, margins)
    fed = [{**line, "rewards": list(pair)} for line, pair in zip(lines, scores, strict=True)]
    (tmp_path / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in fed))
    assert reward_bench.read_scores(tmp_path / "scores.jsonl", items) == scores
    counted = reward_bench.table(items, scores).set_index("category")
    assert counted.pairs["all"] == len(lines)
    assert counted.queries["all"] == len({(line["id"], line["prompt"]) for line in lines})
    assert counted.nan["all"] == 0
