"""One cell of the w × k grid: MM-DPO with these two numbers, every seed, graded on the validation questions.

`python -m mmrlhf_study.pipeline.sensitivity_cell 0.5 1.0` writes data/sensitivity/w0.5-k1.0. At w = 0 the scaling is gone whatever
k is: the cell is DPO, to the last digit of the weights, and takes the runs of chapter 04 that are there.
"""

import sys

from mmrlhf_core.data import records, storage
from mmrlhf_core.models import reward
from mmrlhf_core.rollout.score import CritiqueDecoding
from mmrlhf_core.training.losses import Objective
from mmrlhf_study.chapters import sensitivity
from mmrlhf_study.chapters.experiment import Arm
from mmrlhf_study.evaluation import held_out
from mmrlhf_study.evaluation.held_out import Graded
from mmrlhf_study.pipeline import params, preference
from mmrlhf_study.pipeline.params import Params

DPO = "data/policies/dpo.parquet"


def plain() -> list[Graded]:
    """What chapter 04's DPO answered to the validation questions."""
    if not storage.path(DPO).is_file():
        raise ValueError(f"{DPO} is not there, and w = 0 is DPO: put dpo among the arms of mm_dpo, then run it again.")
    return [one for one in records.read(DPO, Graded) if one.part == "dev"]


def trained(settings: Params, objective: Objective) -> list[Graded]:
    """Train the cell with every seed and grade its answers."""
    s, base = settings.mm_dpo, settings.base
    together = preference.shared(s, base.threads)
    items = held_out.items("data/annotations", s.families, s.questions, s.media, s.frames, base.seed)
    asked = held_out.of_part(items, "dev")
    judge = reward.load("models/reward") if any(item.question is None for item in asked) else None
    arm, graded = Arm(sensitivity.name((objective.w, objective.k)), objective), []
    for number in range(1, s.seeds + 1):
        run = together.run(arm, base.seed + number - 1)
        texts = held_out.answers(together.policy(run), asked, s.max_new_tokens, s.answer_batch)
        graded += held_out.grade(
            asked, texts, arm.name, number, CritiqueDecoding(max_new_tokens=s.critique_tokens), judge
        )
        storage.remove(run.folder)
        print(f"{arm.name}: run {number} of {s.seeds}", flush=True)
    return graded


def make(w: float, k: float) -> None:
    """Write one cell."""
    settings = params.read()
    s = settings.mm_dpo
    objective = Objective("mm_dpo", s.beta_ori, w, k, s.negative_margin, s.sft_weight)
    sensitivity.write(objective, trained(settings, objective) if w else plain())


def main(words: list[str]) -> int:
    if len(words) != 2:
        print("Give w and k: python -m mmrlhf_study.pipeline.sensitivity_cell 0.5 1.0", file=sys.stderr)
        return 2
    try:
        make(*map(float, words))
    except (ValueError, OSError) as error:
        print(f"cell: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
