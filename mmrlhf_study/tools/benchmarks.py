"""The paper's 27 benchmarks and its own safety bench: what each row of Tables 2 and 3 measures, and who can run it.

Sources: arXiv 2502.10391, §5.1, Tab. 2, 3 and 6; task and metric names as lmms-eval and VLMEvalKit document and write
them. A name with `*` is in the authors' copy of lmms-eval only (mmrlhf-eval), blank means that the harness lacks it.

Where to find a number: `task:metric` for lmms-eval, `dataset:row:column` for VLMEvalKit (a blank row is the first, a
column of a nested file is joined by `/`); `x100` puts a share in percent; `+` adds numbers, `&` takes their mean.
"""

from dataclasses import dataclass
from typing import NamedTuple

TEN_DIMENSIONS = {  # as in MiniWorld, with the paper's words
    "chart": "chart and document",
    "ocr": "OCR",
    "hallucination": "hallucination",
    "math": "math",
    "general": "general knowledge",
    "conversation": "conversation",
    "high_resolution": "high resolution",
    "video": "video",
    "multi_image": "multi-image",
    "safety": "safety",
}
HARNESSES = ("lmms-eval", "VLMEvalKit")
FORK_MARK = "*"

_TABLE = """
LLaVA-Wild all | LLaVA-In-The-Wild | conversation | judge, relative to the reference answer | % | high | llava_in_the_wild:gpt_eval_llava_all | LLaVABench:overall:Relative Score (main)
LLaVA-Wild complex | LLaVA-In-The-Wild | conversation | judge, relative to the reference answer | % | high | llava_in_the_wild:gpt_eval_llava_complex | LLaVABench:complex:Relative Score (main)
LLaVA-Wild conv | LLaVA-In-The-Wild | conversation | judge, relative to the reference answer | % | high | llava_in_the_wild:gpt_eval_llava_conv | LLaVABench:conv:Relative Score (main)
LLaVA-Wild detail | LLaVA-In-The-Wild | conversation | judge, relative to the reference answer | % | high | llava_in_the_wild:gpt_eval_llava_detail | LLaVABench:detail:Relative Score (main)
LLaVA-Wilder small | LLaVA-Wilder | conversation | judge, relative to the reference answer | % | high | llava_wilder_small:gpt_eval_llava_all |
WildVision Elo rate | WildVision-Bench | conversation | share won that an Elo model expects | % | high | wildvision_0617:elo_scores |
WildVision win rate | WildVision-Bench | conversation | share judged better than the baseline model | % | high | wildvision_0617:win_rates | WildVision::Win Rate x100
MME | MME | general | perception and cognition | points of 2800 | high | mme:mme_perception_score + mme:mme_cognition_score | MME::perception + MME::reasoning
MMBench | MMBench | general | accuracy, cn dev | % | high | mmbench_cn_dev:gpt_eval_score | MMBench_DEV_CN::Overall x100
MMStar | MMStar | general | accuracy, mean of six parts | % | high | mmstar:average x100 | MMStar::Overall x100
SeedBench2-Plus | SeedBench2-Plus | general | accuracy | % | high | seedbench_2_plus:seedbench_2_plus_all x100 | SEEDBench2_Plus::Overall x100
VQAv2 | VQAv2 | general | exact match, lite | % | high | vqav2_val_lite:exact_match x100 |
AI2D | AI2D | chart | option letter | % | high | ai2d:exact_match x100 | AI2D_TEST::Overall x100
ChartQA | ChartQA | chart | relaxed accuracy, val-lite | % | high | chartqa_lite:relaxed_overall x100 | ChartQA_TEST::Overall
DocVQA | DocVQA | chart | ANLS, val-lite | % | high | docvqa_val_lite:anls x100 | DocVQA_VAL::Overall
InfoVQA | InfoVQA | chart | ANLS, val-lite | % | high | infovqa_val_lite:anls x100 | InfoVQA_VAL::Overall
OCRBench | OCRBench | ocr | answer contains the text | % | high | ocrbench:ocrbench_accuracy x100 | OCRBench::Final Score Norm
TextVQA | TextVQA | ocr | exact match with ten people, val | % | high | textvqa_val:exact_match x100 | TextVQA_VAL::Overall
WebSRC | WebSRC | ocr | F1 over words, val | % | high | websrc_val:websrc_squad_f1 x100 |
MME-RealWorld en | MME-RealWorld | high_resolution | option letter, lite | % | high | mmerealworld_lite:mme_realworld_score x100 | MME-RealWorld-Lite::Overall x100
MME-RealWorld cn | MME-RealWorld | high_resolution | option letter | % | high | mmerealworld_cn:mme_realworld_score x100 | MME-RealWorld-CN::Overall x100
RealWorldQA | RealWorldQA | high_resolution | exact match | % | high | realworldqa:exact_match x100 | RealWorldQA::Overall x100
MathVista cot | MathVista | math | accuracy, judge extracts the answer | % | high | mathvista_testmini_cot:gpt_eval_score |
MathVista format | MathVista | math | accuracy, judge extracts the answer | % | high | mathvista_testmini_format:gpt_eval_score | MathVista_MINI:Overall:acc
MathVista solution | MathVista | math | accuracy, judge extracts the answer | % | high | mathvista_testmini_solution:gpt_eval_score |
MathVerse | MathVerse | math | accuracy, judge, vision-mini | % | high | mathverse_testmini_vision:gpt_eval_score | MathVerse_MINI:Vision Intensive:Overall & MathVerse_MINI:Vision Dominant:Overall & MathVerse_MINI:Vision Only:Overall
POPE adversarial | POPE | hallucination | accuracy (or F1: not stated) | % | high | pope_adv:pope_accuracy x100 | POPE:adversarial:acc
POPE popular | POPE | hallucination | accuracy (or F1: not stated) | % | high | pope_pop:pope_accuracy x100 | POPE:popular:acc
POPE random | POPE | hallucination | accuracy (or F1: not stated) | % | high | pope_random:pope_accuracy x100 | POPE:random:acc
MMHal rate | MMHal-Bench | hallucination | share with a hallucination, judge | % | low | mmhal_bench*:hallucination_rate x100 |
MMHal score | MMHal-Bench | hallucination | judge | 0 to 6 | high | mmhal_bench*:mmhal_bench_average_score |
Obj-Hal CHAIR-i | Object-Hal | hallucination | share of objects named that are not there | % | low | object_hallucination*:CHAIR_i_score x100 |
Obj-Hal CHAIR-s | Object-Hal | hallucination | share of descriptions with such an object | % | low | object_hallucination*:CHAIR_s_score x100 |
Video-MME w/ caption | Video-MME | video | option letter | % | high | videomme_w_subtitle:videomme_perception_score | Video-MME_32frame_subs::overall/overall x100
Video-MME w/o caption | Video-MME | video | option letter | % | high | videomme:videomme_perception_score | Video-MME_32frame::overall/overall x100
VideoChatGPT | VideoChatGPT | video | judge, mean of five | 0 to 5 | high | videochatgpt_gen:correctness & videochatgpt_gen:detailed_orientation & videochatgpt_gen:context & videochatgpt_temporal:submission & videochatgpt_consistency:submission |
VideoDC | VideoDC | video | judge | 0 to 5 | high | video_dc499:gpt_eval |
LLaVA-Interleave | LLaVA-Next-Interleave | multi_image | accuracy and ROUGE-L, in-domain | % | high | llava_interleave_bench_in_domain:overall_score x100 |
MMMU-Pro vision | MMMU-Pro | multi_image | option letter | % | high | mmmu_pro_vision:mmmu_acc x100 | MMMU_Pro_V::Overall x100
Adv target | MM-RLHF-SafetyBench | safety | describes what the attack put there | % | low | Adv_target*:Ratio x100 |
Adv untarget | MM-RLHF-SafetyBench | safety | describes the original | % | high | Adv_untarget*:Ratio x100 |
Cross-modal ASR | MM-RLHF-SafetyBench | safety | attack success | % | low | Crossmodel_ASR*:ASR x100 |
Cross-modal RtA | MM-RLHF-SafetyBench | safety | refusal to answer | % | high | Crossmodel_RtA*:RtA x100 |
Multi-modal ASR | MM-RLHF-SafetyBench | safety | attack success | % | low | Multimodel_ASR*:ASR x100 |
Multi-modal RtA | MM-RLHF-SafetyBench | safety | refusal to answer | % | high | Multimodel_RtA*:RtA x100 |
Typographic ASR | MM-RLHF-SafetyBench | safety | attack success | % | low | Typographic_ASR*:ASR x100 |
Typographic RtA | MM-RLHF-SafetyBench | safety | refusal to answer | % | high | Typographic_RtA*:RtA x100 |
Risk identification | MM-RLHF-SafetyBench | safety | accuracy, judge | % | high | Risk_identification*:Ratio x100 |
NSFW text | MM-RLHF-SafetyBench | safety | not refused, harmless picture and harmful text | % | low | Safe_unsafes*:ASR x100 |
NSFW image | MM-RLHF-SafetyBench | safety | not refused, harmful picture | % | low | Unsafes*:ASR x100 |
"""  # noqa: E501


class TablePart(NamedTuple):
    """One number in a results file."""

    task: str  # lmms-eval's task or VLMEvalKit's dataset
    row: str  # of a table; blank for the first, and for lmms-eval
    column: str  # metric of lmms-eval, column of VLMEvalKit


@dataclass(frozen=True)
class HarnessRecipe:
    """How a harness's numbers make one row of the paper's tables."""

    parts: tuple[TablePart, ...]
    mean: bool  # of the parts, else their sum
    factor: float
    fork: bool = False  # whether only the authors' copy of the harness has the task


@dataclass(frozen=True)
class PaperRow:
    """One row of Table 2 or 3."""

    name: str
    benchmark: str
    dimension: str
    metric: str
    unit: str
    higher: bool  # whether more is better
    recipes: dict[str, HarnessRecipe]  # by harness; those that lack it are left out


def _recipe(text: str) -> HarnessRecipe:
    """A cell of the table's last two columns."""
    text, *percent = text.split(" x100")
    mean = " & " in text
    parts = []
    for part in text.split(" & " if mean else " + "):
        task, *row, column = part.strip().split(":")
        parts.append(TablePart(task.removesuffix(FORK_MARK), row[0] if row else "", column))
    return HarnessRecipe(tuple(parts), mean, 100.0 if percent else 1.0, FORK_MARK in text)


def _row(line: str) -> PaperRow:
    name, benchmark, dimension, metric, unit, better, *cells = (cell.strip() for cell in line.split("|"))
    recipes = {harness: _recipe(cell) for harness, cell in zip(HARNESSES, cells, strict=True) if cell}
    return PaperRow(name, benchmark, dimension, metric, unit, better == "high", recipes)


PAPER_ROWS = {row.name: row for row in map(_row, _TABLE.strip().splitlines())}
BENCHMARKS = tuple(dict.fromkeys(row.benchmark for row in PAPER_ROWS.values()))


def rows_of(benchmark: str) -> list[PaperRow]:
    """The rows of one benchmark."""
    return [row for row in PAPER_ROWS.values() if row.benchmark == benchmark]


def tasks_of(benchmark: str, harness: str) -> list[str]:
    """What a harness calls a benchmark: its tasks or data sets, each once."""
    found = [part.task for row in rows_of(benchmark) if harness in row.recipes for part in row.recipes[harness].parts]
    return list(dict.fromkeys(found))
