"""The annotation form in JupyterLab (paper, Fig. 7): picture or clip, question, all responses in a blind order.

    from mmrlhf_study.tools import widget
    widget.Annotate("data/people/journal.jsonl", "bea", queries, responses, "data/queries/media")

Needs the extra `annotate`. Models are not named, the order differs from person to person, and each saved query is on
disk before the next one is shown.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import anywidget
import traitlets

from mmrlhf_core.data import storage
from mmrlhf_core.data.records import Query, Ranking, RecordError, Response
from mmrlhf_study.annotation import views
from mmrlhf_study.annotation.records import SCALES, Judgement
from mmrlhf_study.tools import journal
from mmrlhf_study.tools.journal import JournalError


def _source(shown: str) -> str:
    """The data address of a picture that `views` made, or '' for one that cannot be shown."""
    found = re.search(r'src="(data:image/png;base64,[^"]*)"', shown)
    return found.group(1) if found else ""


class AnnotationWidget(anywidget.AnyWidget):
    """One annotator's form over some queries; it goes on where the journal ends."""

    _esm = Path(__file__).parent / "widget.js"
    item = traitlets.Dict().tag(sync=True)
    scales = traitlets.Dict({name: list(labels) for name, labels in SCALES.items()}).tag(sync=True)

    def __init__(
        self,
        file: str | Path,
        annotator: str,
        queries: Sequence[Query],
        responses: Iterable[Response],
        folder: str | Path,
    ) -> None:
        super().__init__()
        self.file, self.annotator, self.folder = storage.path(file), annotator, folder
        self.queries, self.responses = queries, defaultdict(list)
        for one in responses:
            self.responses[one.query].append(one)
        self.shown: list[Response] = []
        self.on_msg(self._received)
        self._next("")

    def _next(self, note: str) -> None:
        """Show the first query that this annotator has not finished, in this tab or any other."""
        done = journal.done(self.file, self.annotator)
        left = [query for query in self.queries if query.id not in done]
        counts = {"done": len(self.queries) - len(left), "total": len(self.queries), "note": note}
        if not left:
            self.shown, self.item = [], {"query": "", "token": "", **counts}
            return
        query = left[0]
        self.shown = list(self.responses[query.id])
        Random(f"{self.annotator} {query.id}").shuffle(self.shown)
        self.item = {
            "query": query.id,
            "token": f"{self.annotator} {query.id}",
            "prompt": query.prompt,
            "media": [_source(views.picture(self.folder, path)) for path in query.media],
            "responses": [one.text for one in self.shown],
            **counts,
        }

    def _received(self, _: Any, content: dict[str, Any], __: list[bytes]) -> None:
        """Save what was sent, tell the form, show the next query."""
        if content.get("kind") != "save":
            return
        token = content.get("token")
        try:
            if token != self.item["token"] or not token:
                raise JournalError("This query is no longer the one shown; nothing was saved.")
            new = journal.append(self.file, *self._work(content))
        except (JournalError, RecordError, OSError, KeyError, TypeError, ValueError) as error:
            self.send({"token": token, "problem": f"Not saved: {error}"})
            return
        self.send({"token": token, "problem": ""})
        self._next("Saved." if new else "This query was already saved in another tab; that work counts.")

    def _work(self, content: dict[str, Any]) -> tuple[list[Judgement], Ranking]:
        """The records of what was sent; ranks such as 1, 1, 3 become 1, 1, 2."""
        rows, query = content["rows"], self.item["query"]
        seconds = float(content["seconds"]) / len(self.shown)
        judgements = [
            Judgement(
                query,
                one.id,
                self.annotator,
                *(row[scale] for scale in SCALES),
                reason=row["reason"],
                seconds=round(seconds, 1),
                place=place,
                item=self.item["done"] + 1,
            )
            for place, (one, row) in enumerate(zip(self.shown, rows, strict=True), 1)
        ]
        levels = sorted({row["rank"] for row in rows})
        ranks = tuple(levels.index(row["rank"]) + 1 for row in rows)
        ids = tuple(one.id for one in self.shown)
        return judgements, Ranking(query, self.annotator, ids, ranks, content["basis"])
