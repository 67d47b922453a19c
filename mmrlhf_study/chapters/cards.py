"""Cards of items that two policies answered differently: picture, question, both answers, what each is worth."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

import pandas as pd

from mmrlhf_core.models.prompts import spread
from mmrlhf_study.chapters.base_models import picture
from mmrlhf_study.evaluation.answers import PolicyAnswers
from mmrlhf_study.miniworld.benches import WON, Bench, BenchItem
from mmrlhf_study.miniworld.render import render

STYLE = """<style>
.eval { border: 1px solid #dfe5ec; border-radius: 10px; padding: .7rem 1rem; margin: .7rem 0; background: #fff;
  color: #1d2733; font: 14px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
.eval .row { display: flex; flex-wrap: wrap; gap: .8rem; } .eval .side { flex: 1 1 16rem; background: #f4f6f9;
  border-left: 4px solid #9aa5b1; border-radius: 8px; padding: .4rem .7rem; }
.eval .good { border-color: #0b6e6e; } .eval .bad { border-color: #c2571a; } .eval p { margin: .3rem 0; }
.eval .soft { color: #5b6876; font-size: 13px; }
</style>"""


class AnswerCase(NamedTuple):
    """An item whose answer changed in worth, 0 to 1, from the reference policy to another."""

    bench: str
    item: BenchItem
    policy: str
    before: str
    after: str
    worth_before: float
    worth_after: float


def cases(made: PolicyAnswers, benches: Sequence[Bench], name: str, worse: bool) -> list[AnswerCase]:
    """The items that one policy answers worse (or better) than the first one, largest change first, each once.

    An item of several benches goes to the one that is named first.
    """
    found: dict[str, AnswerCase] = {}
    told = zip(made.items, made.texts[made.reference], made.texts[name], strict=True)
    for item, before, after in told:
        for bench in benches:
            if item.set in bench.sets and bench.measure is not WON:
                a, b = (bench.measure.columns(text, item, before)[0] for text in (before, after))
                if (b < a if worse else b > a) and item.id not in found:
                    found[item.id] = AnswerCase(bench.name, item, name, before, after, a, b)
    return sorted(found.values(), key=lambda case: -abs(case.worth_after - case.worth_before))


def by_gain(found: pd.DataFrame, benches: Sequence[Bench], name: str, worse: bool) -> list[Bench]:
    """The benches by one policy's gain, largest loss (or largest gain) first."""
    gain = found[found.policy == name].set_index("bench").gain
    return sorted(benches, key=lambda bench: gain[bench.name] if worse else -gain[bench.name])


def one_per_bench(found: Iterable[AnswerCase], benches: Iterable[Bench], most: int) -> list[AnswerCase]:
    """The first case of each bench that has one, in the order of the benches, at most `most`."""
    first: dict[str, AnswerCase] = {}
    for case in found:
        first.setdefault(case.bench, case)
    return [first[bench.name] for bench in benches if bench.name in first][:most]


def _side(who: str, text: str, worth: float) -> str:
    """One policy's answer."""
    kind = "good" if worth > 0.5 else "bad"
    said = escape(text) or "<i>(nothing)</i>"
    return f'<div class="side {kind}"><p class="soft">{escape(who)}, worth {worth:.2f}</p><p>{said}</p></div>'


def card(case: AnswerCase, reference: str) -> str:
    """One case as HTML."""
    question = case.item.question
    shown = case.item.pictures or spread(render(question.scene), min(4, len(render(question.scene))))
    label = f" · looked for: {case.item.label}" if case.item.label else ""
    head = f'<p class="soft">{escape(case.bench)} · {escape(case.item.id)}{escape(label)}</p>'
    asked = f"<p><b>{escape(question.prompt)}</b></p><p class='soft'>reference: {escape(question.answer)}</p>"
    sides = _side(reference, case.before, case.worth_before) + _side(case.policy, case.after, case.worth_after)
    return (
        f'<div class="eval">{head}<div>{"".join(map(picture, shown))}</div>{asked}<div class="row">{sides}</div></div>'
    )


def page(found: Iterable[AnswerCase], reference: str) -> str:
    """Cards one below the other, or a sentence when there is none."""
    return STYLE + ("".join(card(case, reference) for case in found) or "<p>No such item.</p>")
