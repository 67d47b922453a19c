"""The sections of `params.yaml` as frozen models: names, types and ranges of every parameter."""

from typing import Annotated, Literal, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Profile = Literal["mini", "smoke", "single_gpu", "paper"]
PROFILES = get_args(Profile)

T = TypeVar("T")
Many = Annotated[tuple[T, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=100)]
Rate = Annotated[float, Field(ge=0, le=0.1)]
Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(ge=0.01, le=1)]
Count = Annotated[int, Field(ge=0, le=10**9)]
Positive = Annotated[int, Field(ge=1, le=10**9)]
Frames = Annotated[int, Field(ge=1, le=512)]
Draws = Annotated[int, Field(ge=20, le=10**6)]
Precision = Literal["float32", "bfloat16"]
Layout = Literal["", "ddp", "zero1", "zero2", "zero3", "fsdp"]


class Section(BaseModel):
    """What every section has in common: no unknown name, no conversion between types, no change afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class BaseParams(Section):
    """What every chapter shares."""

    profile: Profile
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)]
    threads: Annotated[int, Field(ge=1, le=1024)]


class BaseModelsParams(Section):
    """Chapter 00: the query pool, the base policy and the pool of responders."""

    pool_source: Literal["miniworld", "conversations", "preferences", "pictures", "clips"]
    pool_files: Many[str]
    pool_media: str
    pool_prompt: str
    pool_turns: Literal["context", "alone"]
    pool_size: Count
    pool_max_reject_share: Share
    frames: Frames
    train_scenes: Many[int]
    precision: Precision
    questions_per_scene: Annotated[int, Field(ge=1, le=16)]
    names: Many[str]
    starts: Many[str]
    tower_steps: Many[Count]
    steps: Many[Count]
    rates: Many[Rate]
    scene_kinds: Many[str]
    batches: Many[Positive]
    schedules: Many[Literal["linear", "constant_with_warmup"]]
    widths: Many[Annotated[int, Field(ge=96, le=4096)]]
    layers: Many[Annotated[int, Field(ge=1, le=64)]]
    describe: Many[Share]
    verify: Many[Share]
    terse: Many[Share]
    obliging: Many[Share]
    responders: Many[str]
    temperatures: Many[Temperature]
    top_p: TopP
    max_new_tokens: Positive
    exam_scenes: Positive


class CurationParams(Section):
    """Chapter 01: from the pool to the query set."""

    clip: str
    clip_scenes: Count
    clip_steps: Count
    clip_batch: Positive
    clip_rate: Rate
    workers: Annotated[int, Field(ge=0, le=256)]
    centres: Positive
    iterations: Positive
    duplicate_cosine: Annotated[float, Field(ge=0.01, le=1)]
    duplicate_agreement: Share
    probes: Annotated[int, Field(ge=1, le=64)]
    evaluation: str
    evaluation_scenes: Count
    leak_bits: Share
    leak_words: Positive
    leak_share: Share
    image_queries: Count
    ratio: Many[Count]
    video_queries: Count
    safety_kinds: Many[str]
    safety_counts: Many[Count]
    adversarial: Count
    attack_steps: Positive
    describe_prompts: Many[str]
    map_size: Positive
    repeats: Annotated[int, Field(ge=2, le=1000)]


class AnnotationParams(Section):
    """Chapter 02: responses, judgements, rankings and pairs."""

    preferences: str
    media: str
    frames: Frames
    max_new_tokens: Positive
    annotators: Annotated[int, Field(ge=12, le=1000)]
    judgements: Annotated[int, Field(ge=3, le=1000)]
    shared: Count
    check_share: Share
    pairs: Literal["all", "hardest", "adjacent"]
    dev_share: Share
    test_share: Share
    draws: Draws
    judge: str
    judged: Count
    cases: Count
    real_rows: str


class RewardModelParams(Section):
    """Chapter 03: the critique-based reward model, its arms, and what later chapters need of it."""

    start: str
    annotations: str
    media: str
    frames: Frames
    wording: Literal["brief", "full"]
    arms: Many[Literal["none", "raw", "expanded"]]
    full: Literal["raw", "expanded"]
    seeds: Many[Count]
    steps: Positive
    batch: Positive
    accumulation: Positive
    rate: Rate
    optimizer: Literal["adamw", "muon"]
    schedule: Literal["cosine", "linear", "constant_with_warmup"]
    warmup: Share
    precision: Precision
    critique_weight: Weight
    score_weight: Weight
    centre_weight: Weight
    tie_weight: Weight
    balance: Share
    train_tower: bool
    checkpointing: bool
    max_new_tokens: Positive
    score_batch: Positive
    samples: Annotated[int, Field(ge=2, le=64)]
    temperature: Annotated[float, Field(ge=0.01, le=2)]
    narrow: str
    narrow_steps: Positive
    bins: Annotated[int, Field(ge=2, le=100)]
    draws: Draws
    mistakes: Count
    real_rows: str
    real_media: str
    real_scores: str


class MmDpoParams(Section):
    """Chapter 04: MM-DPO, its rivals and the alternative explanations."""

    media: str
    frames: Frames
    queries: Count
    arms: Many[str]
    sft_weight: Weight
    sft_weights: Many[Weight]
    seeds: Annotated[int, Field(ge=2, le=100)]
    beta_ori: Annotated[float, Field(ge=1e-6, le=100)]
    w: Weight
    k: Weight
    negative_margin: Literal["clamp", "paper", "drop"]
    epochs: Annotated[float, Field(ge=0.01, le=1000)]
    batch: Positive
    accumulation: Positive
    rate: Rate
    lora_rank: Count
    checkpointing: bool
    dtype: Precision
    layout: Layout
    processes: Positive
    families: Many[str]
    questions: Annotated[int, Field(ge=2, le=10**6)]
    max_new_tokens: Positive
    answer_batch: Positive
    rewarded: Positive
    critique_tokens: Positive
    watched: Positive
    shown: Count
    draws: Draws


class SensitivityParams(Section):
    """Chapter 05: the w × k grid."""

    w: Many[Weight]
    k: Many[Weight]
    draws: Draws


class SelfImprovementParams(Section):
    """Chapter 06: a policy trained on its own answers, ranked by different signals."""

    base: str
    reward: str
    weak: str
    engine: str
    engine_model: str
    media: str
    frames: Frames
    arms: Many[Literal["weak", "own", "people", "truth", "random"]]
    samples: Annotated[int, Field(ge=1, le=8)]
    fewer: Many[Annotated[int, Field(ge=1, le=7)]]
    sized: Many[str]
    more_rounds: Many[Annotated[int, Field(ge=2, le=3)]]
    repeated: str
    seeds: Annotated[int, Field(ge=1, le=100)]
    queries: Positive
    evaluated: Annotated[int, Field(ge=2, le=10**9)]
    picked: Annotated[int, Field(ge=2, le=10**9)]
    temperature: Temperature
    top_p: TopP
    max_new_tokens: Positive
    critique_tokens: Positive
    pairs: Literal["hardest", "all"]
    tie: Weight
    beta_ori: Annotated[float, Field(ge=1e-6, le=100)]
    sft_weight: Weight
    epochs: Annotated[int, Field(ge=1, le=100)]
    batch: Positive
    accumulation: Positive
    rate: Rate
    lora_rank: Count
    checkpointing: bool
    dtype: Precision
    layout: Layout
    processes: Positive
    cards: Count
    draws: Draws


class EvaluationParams(Section):
    """Chapter 09: ten dimensions, safety, and the paper's tables."""

    policies: Many[str]
    in_detail: Positive
    frames: Frames
    train_scenes: Many[int]
    exam_scenes: Positive
    items_per_set: Annotated[int, Field(ge=2, le=10**5)]
    attacked_pictures: Annotated[int, Field(ge=2, le=10**4)]
    attack_steps: Positive
    temperature: Temperature
    top_p: TopP
    max_new_tokens: Positive
    draws: Draws
    cards_shown: Count
    results_folder: str


class Params(Section):
    """All of `params.yaml`."""

    base: BaseParams
    base_models: BaseModelsParams
    curation: CurationParams
    annotation: AnnotationParams
    reward_model: RewardModelParams
    mm_dpo: MmDpoParams
    sensitivity: SensitivityParams
    self_improvement: SelfImprovementParams
    evaluation: EvaluationParams
