"""Displays of chapter 00, also used in 04 and 09: a gallery of scenes with answers, tables and figures."""

from collections.abc import Mapping, Sequence
from html import escape

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from mmrlhf_study.chapters.figures import LINE, PALETTE, STYLE, colours, finish, legend, picture, side_by_side
from mmrlhf_study.chapters.reporting import in_words
from mmrlhf_study.miniworld.examination import GROUPS, judge
from mmrlhf_study.miniworld.questions import Question
from mmrlhf_study.miniworld.render import render

RIGHT, WRONG = "#e3f4e3", "#fbe3e1"  # background colours of right and wrong answers
MOST_PICTURES = 4  # frames of a clip that a gallery shows
GALLERY_STYLE = f"""{STYLE}<style>
.gallery {{ font-size: 12px; border-collapse: collapse; }} .gallery td, .gallery th {{ text-align: left;
  vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid {LINE}; min-width: 9rem; white-space: normal; }}
.gallery td.scene {{ white-space: nowrap; }} .gallery img {{ height: 96px; margin-right: 3px; }}
.gallery .right {{ background: {RIGHT}; color: #222; }} .gallery .wrong {{ background: {WRONG}; color: #222; }}
</style>"""


def shown_pictures(images: Sequence[Image.Image]) -> str:
    """Pictures in a row; for a long clip, evenly spaced frames with the first and the last."""
    last = len(images) - 1
    if last >= MOST_PICTURES:
        images = [images[i * last // (MOST_PICTURES - 1)] for i in range(MOST_PICTURES)]
    return "".join(picture(image) for image in images)


def _answer(group: str, question: Question, text: str) -> str:
    """One answer, coloured by right or wrong."""
    outcome = judge(group, question, text)
    kind = "right" if outcome.right == outcome.of else "wrong"
    return f"<td class='{kind}'>{escape(text) or '(nothing)'}</td>"


def gallery(asked: Sequence[tuple[str, Question]], answers: Mapping[str, Sequence[str]], shown: Sequence[int]) -> str:
    """Scenes with question, reference and the answers of every model, as HTML; `shown` are positions in `asked`."""
    head = "".join(f"<th>{escape(name)}</th>" for name in ("scene", "question", "reference", *answers))
    rows = []
    for place in shown:
        group, question = asked[place]
        scene = f"<td class='scene'>{escape(group)}<br>{shown_pictures(render(question.scene))}</td>"
        texts = f"<td>{escape(question.prompt)}</td><td>{escape(question.answer)}</td>"
        given = "".join(_answer(group, question, texts_of_model[place]) for texts_of_model in answers.values())
        rows.append(f"<tr>{scene}{texts}{given}</tr>")
    table = f"<table class='gallery'><tr>{head}</tr>{''.join(rows)}</table>"
    return f"{GALLERY_STYLE}<div class='wide'>{table}</div>"


def exam_table(results: pd.DataFrame, measure: str) -> pd.DataFrame:
    """One measure of the examination as text: a row per group, a column per responder, `value [low, high]`."""
    part = results[results.measure == measure]
    text = part.assign(text=in_words(part)).pivot(index="group", columns="responder", values="text")
    return text.reindex(
        index=[group for group in (*GROUPS, "all") if group in text.index], columns=part.responder.unique()
    )


def scenes_figure(asked: Sequence[tuple[str, Question]], each: int = 4) -> Figure:
    """`each` scenes per group of the examination; the first frame of clips, both pictures of pairs."""
    figure, axes = plt.subplots(len(GROUPS), each, figsize=(2 * each, 2 * len(GROUPS)), squeeze=False)
    for row, group in zip(axes, GROUPS, strict=True):
        scenes = list({question.scene.hash: question.scene for name, question in asked if name == group}.values())
        for axis, scene in zip(row, scenes, strict=False):
            images = render(scene)[: 2 if group == "pair" else 1]
            width = sum(image.width + 4 for image in images) - 4
            sheet = Image.new("RGB", (width, images[0].height), "white")
            for number, image in enumerate(images):
                sheet.paste(image, (number * (image.width + 4), 0))
            axis.imshow(sheet, interpolation="nearest")
        for axis in row:
            axis.axis("off")
        row[0].set_title(group, loc="left", fontsize=10)
    return figure


def intervals_figure(results: pd.DataFrame, measure: str) -> Figure:
    """One measure per group, a dot with its 95 % interval for every model."""
    figure, axis = plt.subplots(figsize=(8, 3.4))
    side_by_side(axis, results[results.measure == measure], "responder", "group")
    finish(axis, f"{measure} in MiniWorld, 95 % intervals", "y", ylabel=measure)
    return figure


def curves_figure(curves: pd.DataFrame) -> Figure:
    """Training loss of every model, on the answer's tokens."""
    figure, axis = plt.subplots(figsize=(8, 3.4))
    for name, colour in colours(curves.model).items():
        rows = curves[curves.model == name]
        axis.plot(rows.step, rows.loss, color=colour, label=name)
    finish(
        axis,
        "Training loss, MiniWorld",
        "both",
        xlabel="training step",
        ylabel="loss per answer token (nats)",
        yscale="log",
    )
    if len(curves):
        legend(axis)
    return figure


def composition_figure(counts: pd.DataFrame) -> Figure:
    """Queries of the pool per class and per topic, largest first."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), width_ratios=(1, 2), layout="constrained")
    for axis, (column, rows) in zip(axes, counts.groupby("by", sort=False), strict=True):
        few = len(rows) < 8
        axis.bar(range(len(rows)), rows.queries, color=PALETTE[0])
        axis.set_xticks(range(len(rows)) if few else [], rows["name"] if few else [])
        finish(axis, f"queries per {column}", xlabel="" if few else f"{len(rows)} values, largest first")
    return figure
