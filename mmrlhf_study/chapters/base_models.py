"""The pictures of chapter 00: scenes with answers, intervals per group, loss curves, the pool's composition."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from mmrlhf_study.miniworld.examination import GROUPS, judge
from mmrlhf_study.miniworld.questions import Question
from mmrlhf_study.miniworld.render import render

RIGHT, WRONG = "#e3f4e3", "#fbe3e1"


def picture(image: Image.Image) -> str:
    """A picture inside an HTML page, pixels kept sharp."""
    file = BytesIO()
    image.save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    style = "display:inline-block;image-rendering:pixelated;margin:1px"
    return f"<img src='data:image/png;base64,{data}' width=56 style='{style}'>"


def _answer(group: str, question: Question, text: str) -> str:
    """One answer on a ground that says whether it is right."""
    outcome = judge(group, question, text)
    ground = RIGHT if outcome.right == outcome.of else WRONG
    return f"<td style='text-align:left;background:{ground};color:#222'>{escape(text) or '(nothing)'}</td>"


def gallery(asked: Sequence[tuple[str, Question]], answers: Mapping[str, Sequence[str]], shown: Sequence[int]) -> str:
    """Scenes with question, reference and every model's answer, as an HTML table; `shown` are places in `asked`."""
    head = "".join(f"<th>{escape(name)}</th>" for name in ("scene", "question", "reference", *answers))
    rows = []
    for place in shown:
        group, question = asked[place]
        frames = "".join(picture(image) for image in render(question.scene)[:4])
        texts = "".join(
            f"<td style='text-align:left'>{escape(text)}</td>" for text in (question.prompt, question.answer)
        )
        given = "".join(_answer(group, question, texts_of[place]) for texts_of in answers.values())
        scene = f"<td style='white-space:normal;text-align:left'>{escape(group)}<br>{frames}</td>"
        rows.append(f"<tr>{scene}{texts}{given}</tr>")
    return f"<table style='font-size:11px;max-width:100%'><tr>{head}</tr>{''.join(rows)}</table>"


def scenes_figure(asked: Sequence[tuple[str, Question]], each: int = 4) -> Figure:
    """`each` scenes of every group, the first frame of clips and both pictures of pairs."""
    figure, axes = plt.subplots(len(GROUPS), each, figsize=(2 * each, 2 * len(GROUPS)), squeeze=False)
    for row, group in zip(axes, GROUPS, strict=True):
        found = list({question.scene.hash: question for name, question in asked if name == group}.values())
        for axis, question in zip(row, found, strict=False):
            pictures = render(question.scene)[: 2 if group == "pair" else 1]
            sheet = Image.new(
                "RGB", (sum(p.width for p in pictures) + 4 * len(pictures) - 4, pictures[0].height), "white"
            )
            for number, picture in enumerate(pictures):
                sheet.paste(picture, (number * (picture.width + 4), 0))
            axis.imshow(sheet, interpolation="nearest")
        for axis in row:
            axis.axis("off")
        row[0].set_title(group, loc="left", fontsize=10)
    return figure


def intervals_figure(found: pd.DataFrame, measure: str) -> Figure:
    """One measure per group, a dot with its 95 % interval for every model."""
    part = found[found.measure == measure]
    groups = [group for group in (*GROUPS, "all") if group in set(part.group)]
    figure, axis = plt.subplots(figsize=(8, 3.4))
    names = list(dict.fromkeys(part.responder))
    for number, name in enumerate(names):
        mine = part[part.responder == name].set_index("group").loc[groups]
        x = [place + (number - (len(names) - 1) / 2) * 0.13 for place in range(len(groups))]
        errors = [mine.value - mine.low, mine.high - mine.value]
        axis.errorbar(x, mine.value, [e.clip(lower=0) for e in errors], fmt="o", markersize=4, capsize=2, label=name)
    axis.set(
        xticks=range(len(groups)), xticklabels=groups, ylabel=measure, title=f"{measure} in MiniWorld, 95 % intervals"
    )
    axis.grid(axis="y", alpha=0.3)
    axis.legend(fontsize=8, ncols=len(names), loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False)
    return figure


def curves_figure(curves: pd.DataFrame) -> Figure:
    """Training loss of every model, on the answer's tokens."""
    figure, axis = plt.subplots(figsize=(8, 3.4))
    for name, rows in curves.groupby("model", sort=False):
        axis.plot(rows.step, rows.loss, label=name)
    axis.set(xlabel="step of its own training", ylabel="loss per answer token (nats)", yscale="log", title="MiniWorld")
    axis.grid(alpha=0.3)
    if len(curves):
        axis.legend(fontsize=8, frameon=False)
    return figure


def composition_figure(counts: pd.DataFrame) -> Figure:
    """Queries of the pool per class and per topic, largest first."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), width_ratios=(1, 2), layout="constrained")
    for axis, (column, rows) in zip(axes, counts.groupby("by", sort=False), strict=True):
        axis.bar(range(len(rows)), rows.queries, color="#4878a8")
        axis.set(title=f"queries per {column}", xlabel="" if len(rows) < 8 else f"{len(rows)} of them, by size")
        axis.set_xticks(range(len(rows)) if len(rows) < 8 else [], rows["name"] if len(rows) < 8 else [])
    return figure
