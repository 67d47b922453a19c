"""The stage `sensitivity_cell`: one cell of the w × k grid, graded on the validation questions.

`python -m mmrlhf_study.pipeline.sensitivity_cell 0.5 1.0` trains MM-DPO with w = 0.5 and k = 1.0 with every seed and
writes data/sensitivity/w0.5-k1.0. At w = 0 the scaling is gone whatever k is: the cell is DPO, to the last digit of the
weights, and takes the runs of chapter 04.
"""

import sys

from mmrlhf_core.data import records, storage
from mmrlhf_core.models import reward
from mmrlhf_core.rollout.score import CritiqueDecoding
from mmrlhf_core.training.losses import Objective
from mmrlhf_study.chapters import sensitivity
from mmrlhf_study.chapters.experiment import BASE, Arm, Experiment, TrainingSettings
from mmrlhf_study.chapters.sensitivity import Cell
from mmrlhf_study.evaluation import held_out
from mmrlhf_study.evaluation.held_out import Graded, Grader
from mmrlhf_study.pipeline import params
from mmrlhf_study.pipeline.sections import Params

DPO = "data/policies/dpo.parquet"


def dpo() -> list[Graded]:
    """The graded answers of chapter 04's DPO to the validation questions."""
    if not storage.path(DPO).is_file():
        raise ValueError(f"{DPO} does not exist, and w = 0 is DPO: put dpo among the arms of mm_dpo and run it again.")
    return [answer for answer in records.read(DPO, Graded) if answer.part == "dev"]


def grader(settings: Params) -> Grader:
    """The questions of chapter 04, with a judge where the truth of a question is unknown."""
    s = settings.mm_dpo
    items = held_out.for_annotations("data/annotations", s.families, s.questions, s.media, s.frames, settings.base.seed)
    judge = reward.load("models/reward") if any(item.question is None for item in items) else None
    return Grader(items, s.max_new_tokens, CritiqueDecoding(max_new_tokens=s.critique_tokens), judge, s.answer_batch)


def trained(settings: Params, objective: Objective) -> list[Graded]:
    """Train the cell with every seed and grade its answers."""
    base, seeds, graded = settings.base, settings.mm_dpo.seeds, []
    experiment = Experiment.of(BASE, TrainingSettings.of(settings.mm_dpo, base.threads))
    exam, arm = grader(settings), Arm(Cell(objective.w, objective.k).name, objective)
    for number in range(1, seeds + 1):
        run = experiment.run(arm, base.seed + number - 1)
        graded += exam.graded(experiment.policy(run), "dev", arm.name, number)
        storage.remove(run.folder)
        print(f"{arm.name}: run {number} of {seeds}", flush=True)
    return graded


def make(settings: Params, w: float, k: float) -> None:
    """Write one cell."""
    s = settings.mm_dpo
    objective = Objective("mm_dpo", s.beta_ori, w, k, s.negative_margin, s.sft_weight)
    sensitivity.write(objective, trained(settings, objective) if w else dpo())


def main(words: list[str]) -> int:
    if len(words) != 2:
        print("Give w and k: python -m mmrlhf_study.pipeline.sensitivity_cell 0.5 1.0", file=sys.stderr)
        return 2
    try:
        make(params.read(), *map(float, words))
    except (ValueError, OSError) as error:
        print(f"sensitivity_cell: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
