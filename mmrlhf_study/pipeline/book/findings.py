"""What the run showed, in the words of `reports/findings.yaml`; every number is read from the metrics of the run."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mmrlhf_core.data import storage
from mmrlhf_study.chapters.reporting import shown
from mmrlhf_study.pipeline import params

FINDINGS_FILE = "reports/findings.yaml"
MISSING = "not in this run"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClaimFinding(Strict):
    """A claim of the paper, what became of it here, and where the number stands: stage, then keys of its metrics."""

    claim: str
    verdict: str
    measured: str
    number: list[str] = Field(min_length=2)


class ChapterFinding(Strict):
    """One figure of a chapter, some of its headline numbers, and what they mean."""

    figure: str
    headlines: list[str]
    text: str


class Findings(Strict):
    """All of `reports/findings.yaml`; `profile` is the one whose numbers the words describe."""

    profile: str
    claims: list[ClaimFinding]
    chapters: dict[str, ChapterFinding]


def read(file: str | Path = FINDINGS_FILE) -> Findings:
    """The findings, or an error that names the key."""
    try:
        return Findings.model_validate(params.load_yaml(storage.path(file)))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{file}: {place}: {first['msg']}, given: {first['input']!r}.") from None


def metrics(stage: str) -> dict[str, Any]:
    """What a chapter measured; nothing where it has not run."""
    file = storage.path(f"reports/metrics/{stage}.json")
    return storage.read_json(file) if file.is_file() else {}


def value(row: dict[str, Any]) -> str:
    """`0.74 [0.70, 0.77]` on one line, with one digit where the interval is wide; an exact number stands alone."""
    middle, low, high = row["value"], row["low"], row["high"]
    if low == middle == high:
        return f"{middle:,.4g}"
    return shown(middle, low, high, digits=2 if high - low < 3 else 1).replace(" ", "\u00a0")


def number(claim: ClaimFinding) -> str:
    """The number of a claim with its interval, or a verdict in words; a run in another profile may not have it."""
    place: Any = metrics(claim.number[0])
    for key in claim.number[1:]:
        place = place.get(key) if isinstance(place, dict) else None
    if isinstance(place, str):
        return place
    return value(place) if place else MISSING
