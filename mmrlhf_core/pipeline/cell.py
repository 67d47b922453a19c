"""One cell of the w × k grid: MM-DPO with these two numbers, every seed, graded on the validation questions.

`python -m mmrlhf_core.pipeline.cell 0.5 1.0` writes data/sensitivity/w0.5-k1.0.parquet. At w = 0 the scaling is gone
whatever k is: the cell is DPO, to the last digit of the weights, and takes the runs of chapter 04 that are there.
"""

import sys

from mmrlhf_core import params, records, storage
from mmrlhf_core.evaluation import gains
from mmrlhf_core.evaluation.gains import Graded
from mmrlhf_core.inference.score import Decoding
from mmrlhf_core.models import reward
from mmrlhf_core.params import Params
from mmrlhf_core.pipeline import preference
from mmrlhf_core.training.arms import Objective
from mmrlhf_core.training.experiment import Arm

DPO = "data/policies/dpo.parquet"


def name(w: float, k: float) -> str:
    """What a cell is called, as file and as arm."""
    return f"w{w}-k{k}"


def plain() -> list[Graded]:
    """What chapter 04's DPO answered to the validation questions."""
    if not storage.path(DPO).is_file():
        raise ValueError(f"{DPO} is not there, and w = 0 is DPO: put dpo among the arms of mm_dpo, then run it again.")
    return [one for one in records.read(DPO, Graded) if one.part == "dev"]


def trained(settings: Params, w: float, k: float) -> list[Graded]:
    """Train the cell with every seed and grade its answers."""
    s = settings.mm_dpo
    together = preference.shared(s, settings.base.threads)
    asked = gains.items("data/annotations", s.families, s.questions, s.media, s.frames, settings.base.seed)
    asked = gains.of_part(asked, "dev")
    judge = reward.load("models/reward") if any(item.question is None for item in asked) else None
    objective = Objective("mm_dpo", s.beta_ori, w, k, s.negative_margin, s.sft_weight)
    graded = []
    for number in range(s.seeds):
        run = together.run(Arm(name(w, k), objective), settings.base.seed + number)
        texts = gains.answers(together.policy(run), asked, s.max_new_tokens, s.answer_batch)
        how = Decoding(max_new_tokens=s.critique_tokens)
        graded += gains.grade(asked, texts, name(w, k), number + 1, how, judge)
        storage.remove(run.folder)
        print(f"w {w}, k {k}: run {number + 1} of {s.seeds}", flush=True)
    return graded


def main(words: list[str]) -> int:
    if len(words) != 2:
        print("Give w and k: python -m mmrlhf_core.pipeline.cell 0.5 1.0", file=sys.stderr)
        return 2
    try:
        w, k = map(float, words)
        found = plain() if w == 0 else trained(params.read(), w, k)
        records.write(f"data/sensitivity/{name(w, k)}.parquet", found, Graded)
    except (ValueError, OSError) as error:
        print(f"cell: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
