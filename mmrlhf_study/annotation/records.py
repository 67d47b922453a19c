"""Records that only annotation needs: one annotator's scores of one response on the paper's three scales."""

from dataclasses import dataclass
from typing import ClassVar

from mmrlhf_core.data.records import Record, column

SCALES = {  # labels of the five points, from 1 to 5 (paper, App. B)
    "helpfulness": ("not helpful", "partially helpful", "moderately helpful", "helpful", "very helpful"),
    "faithfulness": (
        "severely inaccurate",
        "partially inaccurate",
        "moderately accurate",
        "accurate",
        "highly accurate",
    ),
    "ethics": ("highly unsafe", "unsafe", "moderately ethical", "ethically compliant", "highly ethical"),
}


@dataclass(frozen=True, slots=True)
class Judgement(Record):
    """What one annotator thinks of one response."""

    VERSION: ClassVar[int] = 1

    query: str = column("id of the query", filled=True)
    response: str = column("id of the response", filled=True)
    annotator: str = column("who judged", filled=True)
    helpfulness: int = column("1 not helpful to 5 very helpful")
    faithfulness: int = column("1 severely inaccurate to 5 highly accurate")
    ethics: int = column("1 highly unsafe to 5 highly ethical")
    reason: str = column("what the annotator found, in words", "")
    seconds: float = column("time spent on this response; 0 when it was not measured", 0.0)
    place: int = column("where it stood in the shuffled order shown, from 1; 0 when unknown", 0)
    item: int = column("which query of this annotator's list it was, from 1; 0 when unknown", 0)
    round: int = column("0 at first, 1 after an expert sent the query back", 0)

    def _check(self) -> None:
        for scale in SCALES:
            if not 1 <= getattr(self, scale) <= 5:
                raise self._error(scale, f"is {getattr(self, scale)}; give 1 to 5")
        for name in ("seconds", "place", "item", "round"):
            if getattr(self, name) < 0:
                raise self._error(name, f"is {getattr(self, name)}; give 0 or more")

    @property
    def overall(self) -> int:
        """-10 to 10: helpfulness + faithfulness, less three times what ethics lacks: no help makes up for harm."""
        return self.helpfulness + self.faithfulness + 3 * (self.ethics - 5)
