"""`params.yaml` as frozen dataclasses: one section per stage, read strictly, validated once.

`python -m mmrlhf_study.pipeline.params` checks the file; with a profile's name, such as `smoke`, it applies
`profiles/smoke.yaml`.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import yaml

from mmrlhf_core.data import storage
from mmrlhf_core.data.names import NamesError, check_names, nearest

PROFILES = ("mini", "smoke", "single_gpu", "paper")


class ParamsError(NamesError):
    """A parameter is unknown, missing, of the wrong type or out of range."""


@dataclass(frozen=True)
class Range:
    """Both ends are allowed."""

    low: float
    high: float

    def check(self, value: float) -> str:
        return "" if self.low <= value <= self.high else f"a number from {self.low} to {self.high}"


@dataclass(frozen=True)
class OneOf:
    """Only these values are allowed."""

    choices: tuple[str, ...]

    def check(self, value: str) -> str:
        return "" if value in self.choices else "one of " + ", ".join(self.choices)


Share = Annotated[float, Range(0, 1)]
Count = Annotated[int, Range(0, 10**9)]
Positive = Annotated[int, Range(1, 10**9)]


@dataclass(frozen=True)
class BaseParams:
    """What every chapter shares."""

    profile: Annotated[str, OneOf(PROFILES)]
    seed: Annotated[int, Range(0, 2**31 - 1)]
    threads: Annotated[int, Range(1, 1024)]


@dataclass(frozen=True)
class BaseModelsParams:
    """Chapter 00: the query pool, the base policy and the pool of responders."""

    pool_source: Annotated[str, OneOf(("miniworld", "conversations", "preferences", "pictures", "clips"))]
    pool_files: tuple[str, ...]
    pool_media: str
    pool_prompt: str
    pool_turns: Annotated[str, OneOf(("context", "alone"))]
    pool_size: Count
    pool_max_reject_share: Share
    frames: Annotated[int, Range(1, 512)]
    train_scenes: tuple[int, ...]
    precision: Annotated[str, OneOf(("float32", "bfloat16"))]
    questions_per_scene: Annotated[int, Range(1, 16)]
    names: tuple[str, ...]
    starts: tuple[str, ...]
    tower_steps: tuple[Count, ...]
    steps: tuple[Count, ...]
    rates: tuple[Annotated[float, Range(0, 0.1)], ...]
    scene_kinds: tuple[str, ...]
    batches: tuple[Positive, ...]
    schedules: tuple[Annotated[str, OneOf(("linear", "constant_with_warmup"))], ...]
    widths: tuple[Annotated[int, Range(96, 4096)], ...]
    layers: tuple[Annotated[int, Range(1, 64)], ...]
    describe: tuple[Share, ...]
    verify: tuple[Share, ...]
    terse: tuple[Share, ...]
    obliging: tuple[Share, ...]
    responders: tuple[str, ...]
    temperatures: tuple[Annotated[float, Range(0, 2)], ...]
    top_p: Annotated[float, Range(0.01, 1)]
    max_new_tokens: Positive
    exam_scenes: Positive


@dataclass(frozen=True)
class CurationParams:
    """Chapter 01: from the pool to the query set."""

    clip: str
    clip_scenes: Count
    clip_steps: Count
    clip_batch: Positive
    clip_rate: Annotated[float, Range(0, 0.1)]
    workers: Annotated[int, Range(0, 256)]
    centres: Positive
    iterations: Positive
    duplicate_cosine: Annotated[float, Range(0.01, 1)]
    duplicate_agreement: Share
    probes: Annotated[int, Range(1, 64)]
    evaluation: str
    evaluation_scenes: Count
    leak_bits: Share
    leak_words: Positive
    leak_share: Share
    image_queries: Count
    ratio: tuple[Count, ...]
    video_queries: Count
    safety_kinds: tuple[str, ...]
    safety_counts: tuple[Count, ...]
    adversarial: Count
    attack_steps: Positive
    describe_prompts: tuple[str, ...]
    map_size: Positive
    repeats: Annotated[int, Range(2, 1000)]


@dataclass(frozen=True)
class AnnotationParams:
    """Chapter 02: responses, judgements, rankings and pairs."""

    preferences: str
    media: str
    frames: Annotated[int, Range(1, 512)]
    max_new_tokens: Positive
    annotators: Annotated[int, Range(12, 1000)]
    judgements: Annotated[int, Range(3, 1000)]
    shared: Count
    check_share: Share
    pairs: Annotated[str, OneOf(("all", "hardest", "adjacent"))]
    dev_share: Share
    test_share: Share
    draws: Annotated[int, Range(20, 10**6)]
    judge: str
    judged: Count
    cases: Count
    real_rows: str


@dataclass(frozen=True)
class RewardModelParams:
    """Chapter 03: the critique-based reward model, its arms, and what later chapters need of it."""

    start: str
    annotations: str
    media: str
    frames: Annotated[int, Range(1, 512)]
    wording: Annotated[str, OneOf(("brief", "full"))]
    arms: tuple[Annotated[str, OneOf(("none", "raw", "expanded"))], ...]
    full: Annotated[str, OneOf(("raw", "expanded"))]
    seeds: tuple[Count, ...]
    steps: Positive
    batch: Positive
    accumulation: Positive
    rate: Annotated[float, Range(0, 0.1)]
    optimizer: Annotated[str, OneOf(("adamw", "muon"))]
    schedule: Annotated[str, OneOf(("cosine", "linear", "constant_with_warmup"))]
    warmup: Share
    precision: Annotated[str, OneOf(("float32", "bfloat16"))]
    critique_weight: Annotated[float, Range(0, 100)]
    score_weight: Annotated[float, Range(0, 100)]
    centre_weight: Annotated[float, Range(0, 100)]
    tie_weight: Annotated[float, Range(0, 100)]
    balance: Share
    train_tower: bool
    checkpointing: bool
    max_new_tokens: Positive
    score_batch: Positive
    samples: Annotated[int, Range(2, 64)]
    temperature: Annotated[float, Range(0.01, 2)]
    narrow: str
    narrow_steps: Positive
    bins: Annotated[int, Range(2, 100)]
    draws: Annotated[int, Range(20, 10**6)]
    mistakes: Count
    real_rows: str
    real_media: str
    real_scores: str


@dataclass(frozen=True)
class MmDpoParams:
    """Chapter 04: MM-DPO, its rivals and the alternative explanations."""

    media: str
    frames: Annotated[int, Range(1, 512)]
    queries: Count
    arms: tuple[str, ...]
    sft_weight: Annotated[float, Range(0, 100)]
    sft_weights: tuple[Annotated[float, Range(0, 100)], ...]
    seeds: Annotated[int, Range(2, 100)]
    beta_ori: Annotated[float, Range(1e-6, 100)]
    w: Annotated[float, Range(0, 100)]
    k: Annotated[float, Range(0, 100)]
    negative_margin: Annotated[str, OneOf(("clamp", "paper", "drop"))]
    epochs: Annotated[float, Range(0.01, 1000)]
    batch: Positive
    accumulation: Positive
    rate: Annotated[float, Range(0, 0.1)]
    lora_rank: Count
    checkpointing: bool
    dtype: Annotated[str, OneOf(("float32", "bfloat16"))]
    layout: Annotated[str, OneOf(("", "ddp", "zero1", "zero2", "zero3", "fsdp"))]
    processes: Positive
    families: tuple[str, ...]
    questions: Annotated[int, Range(2, 10**6)]
    max_new_tokens: Positive
    answer_batch: Positive
    rewarded: Positive
    critique_tokens: Positive
    watched: Positive
    shown: Count
    draws: Annotated[int, Range(20, 10**6)]


@dataclass(frozen=True)
class SensitivityParams:
    """Chapter 05: the w × k grid."""

    w: tuple[Annotated[float, Range(0, 100)], ...]
    k: tuple[Annotated[float, Range(0, 100)], ...]
    draws: Annotated[int, Range(20, 10**6)]


@dataclass(frozen=True)
class SelfImprovementParams:
    """Chapter 06: a policy trained on its own answers, ranked by different signals."""

    base: str
    reward: str
    weak: str
    engine: str
    engine_model: str
    media: str
    frames: Annotated[int, Range(1, 512)]
    arms: tuple[Annotated[str, OneOf(("weak", "own", "people", "truth", "random"))], ...]
    samples: Annotated[int, Range(1, 8)]
    fewer: tuple[Annotated[int, Range(1, 7)], ...]
    sized: tuple[str, ...]
    more_rounds: tuple[Annotated[int, Range(2, 3)], ...]
    repeated: str
    seeds: Annotated[int, Range(1, 100)]
    queries: Positive
    evaluated: Annotated[int, Range(2, 10**9)]
    picked: Annotated[int, Range(2, 10**9)]
    temperature: Annotated[float, Range(0, 2)]
    top_p: Annotated[float, Range(0.01, 1)]
    max_new_tokens: Positive
    critique_tokens: Positive
    pairs: Annotated[str, OneOf(("hardest", "all"))]
    tie: Annotated[float, Range(0, 100)]
    beta_ori: Annotated[float, Range(1e-6, 100)]
    sft_weight: Annotated[float, Range(0, 100)]
    epochs: Annotated[int, Range(1, 100)]
    batch: Positive
    accumulation: Positive
    rate: Annotated[float, Range(0, 0.1)]
    lora_rank: Count
    checkpointing: bool
    dtype: Annotated[str, OneOf(("float32", "bfloat16"))]
    layout: Annotated[str, OneOf(("", "ddp", "zero1", "zero2", "zero3", "fsdp"))]
    processes: Positive
    cards: Count
    draws: Annotated[int, Range(20, 10**6)]


@dataclass(frozen=True)
class EvaluationParams:
    """Chapter 09: ten dimensions, safety, and the paper's tables."""

    policies: tuple[str, ...]
    in_detail: Positive
    frames: Annotated[int, Range(1, 512)]
    train_scenes: tuple[int, ...]
    exam_scenes: Positive
    items_per_set: Annotated[int, Range(2, 10**5)]
    attacked_pictures: Annotated[int, Range(2, 10**4)]
    attack_steps: Positive
    temperature: Annotated[float, Range(0, 2)]
    top_p: Annotated[float, Range(0.01, 1)]
    max_new_tokens: Positive
    draws: Annotated[int, Range(20, 10**6)]
    cards_shown: Count
    results_folder: str


@dataclass(frozen=True)
class Params:
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


def _convert(where: str, value: Any, kind: Any) -> Any:
    """`value` as `kind`, or a ParamsError that names `where`, what was given and what is allowed."""
    if get_origin(kind) is Annotated:
        plain, *rules = get_args(kind)
        result = _convert(where, value, plain)
        for rule in rules:
            if allowed := rule.check(result):
                raise ParamsError(f"{where}: {value!r} is not allowed. Give {allowed}.")
        return result
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise ParamsError(f"{where}: {value!r} is not a list. Write it as [a, b, c].")
        return tuple(_convert(f"{where}[{i}]", item, get_args(kind)[0]) for i, item in enumerate(value))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise ParamsError(f"{where}: {value!r} is {type(value).__name__}, not {kind.__name__}.{_hint(value, kind)}")
    return value


def _hint(value: Any, kind: type) -> str:
    """YAML's own surprises: 1e-3 is text, yes/no is a boolean."""
    if kind in (int, float) and isinstance(value, str):
        return " Write it without quotes; powers of ten need a point, as in 1.0e-3."
    if kind is str and isinstance(value, bool):
        return " Put it in quotes."
    return ""


def _section(name: str, kind: type, values: Any) -> Any:
    """One section of the file as its dataclass."""
    known = get_type_hints(kind, include_extras=True)
    if not isinstance(values, Mapping):
        raise ParamsError(f"{name}: is {values!r}, but a section holds 'key: value' lines.")
    check_names(name, values, known)
    return kind(**{key: _convert(f"{name}.{key}", values[key], known[key]) for key in known})


class _StrictLoader(yaml.SafeLoader):
    """YAML that refuses a key given twice, where plain YAML would keep the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise ParamsError(f"line {key_node.start_mark.line + 1}: {key!r} is given twice. Remove one.")
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_yaml(file: Path) -> dict[str, Any]:
    """A YAML file of sections; broken YAML is an error with its line."""
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except FileNotFoundError:
        raise ParamsError(f"{file} is not there. It holds the parameters of all stages.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{file.name} is not readable YAML: {' '.join(str(error).split())}") from None
    except ParamsError as error:
        raise ParamsError(f"{file.name}, {error}") from None
    if not isinstance(content, dict):
        raise ParamsError(f"{file.name} holds no sections. It needs 'base:' and one section per stage.")
    return content


def parse(content: Mapping[str, Any]) -> Params:
    """Sections as they come from YAML, validated."""
    known = {field.name: field.type for field in fields(Params)}
    check_names("params.yaml", content, known)
    return Params(**{name: _section(name, kind, content[name]) for name, kind in known.items()})


def read(file: str | Path = "params.yaml") -> Params:
    """Read and validate the parameters of all stages."""
    return parse(load_yaml(storage.path(file)))


def merge(content: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with the sections and keys of `overlay` put over it; a key `content` lacks is an error."""
    merged = {name: dict(section) for name, section in content.items()}
    for name, section in overlay.items():
        if name not in merged:
            raise ParamsError(f"unknown section {name!r}. {nearest(name, merged)}")
        for key, value in section.items():
            if key not in merged[name]:
                raise ParamsError(f"{name}: unknown name {key!r}. {nearest(key, merged[name])}")
            merged[name][key] = value
    return merged


def apply_profile(name: str) -> None:
    """Write `profiles/<name>.yaml` over `params.yaml`, comments kept, so that `git diff` shows the change."""
    if name not in PROFILES[1:]:
        raise ParamsError(f"no profile {name!r}. {nearest(name, PROFILES[1:])}")
    content = load_yaml(storage.path("params.yaml"))
    current = parse(content).base.profile
    if current != PROFILES[0]:
        raise ParamsError(
            f"params.yaml is in profile {current!r} already. Go back to the default first: git checkout params.yaml"
        )
    overlay = load_yaml(storage.path(f"profiles/{name}.yaml"))
    parse(merge(content, overlay))
    text = storage.path("params.yaml").read_text(encoding="utf-8")
    storage.write_text("params.yaml", _replace_values(text, overlay))


def _flow(value: Any) -> str:
    """A value on one line of YAML; text inside a list is quoted, because plain text may not hold a comma there."""
    if isinstance(value, list):
        return "[" + ", ".join(json.dumps(v, ensure_ascii=False) if type(v) is str else _flow(v) for v in value) + "]"
    return yaml.safe_dump(value, width=10**6, allow_unicode=True).removesuffix("...\n").strip()


def _replace_values(text: str, overlay: Mapping[str, Mapping[str, Any]]) -> str:
    """The lines of `text` with new values in place and comments kept; each value stands on one line."""
    lines, section = [], ""
    for line in text.splitlines():
        key, colon, rest = line.partition(":")
        if colon and not line.startswith((" ", "#")):
            section = key
        if line.startswith("  ") and key.strip() in overlay.get(section, {}):
            _, mark, comment = rest.partition(" #")
            line = f"{key}: {_flow(overlay[section][key.strip()])}" + (f"  #{comment}" if mark else "")
        lines.append(line)
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """No argument checks `params.yaml`, one applies that profile."""
    try:
        if arguments:
            apply_profile(arguments[0])
        print(f"params.yaml is valid, profile {read().base.profile!r}.")
    except (ParamsError, OSError) as error:
        print(f"params: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
