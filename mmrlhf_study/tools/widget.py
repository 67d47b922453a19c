"""The annotation form in JupyterLab (paper, Fig. 7): picture or clip, question, all responses in a blind order.

    from mmrlhf_study.tools.widget import AnnotationWidget
    AnnotationWidget("data/people/journal.jsonl", "bea", queries, responses, "data/queries/media")

Needs the extra `annotate`. The form names no model and shows each person the responses in another order. Each saved
query is on disk before the next one is shown; `journal.read` gives the judgements and rankings back.
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
from mmrlhf_study.annotation.pairs import dense_ranks
from mmrlhf_study.annotation.records import SCALES, Judgement
from mmrlhf_study.tools import journal
from mmrlhf_study.tools.journal import JournalError


def _source(html: str) -> str:
    """The data address of a picture that `views` made, or '' for one that cannot be shown."""
    match = re.search(r'src="(data:image/png;base64,[^"]*)"', html)
    return match.group(1) if match else ""


class AnnotationWidget(anywidget.AnyWidget):
    """One annotator's form over some queries; it continues after the work in the journal."""

    _esm = Path(__file__).parent / "widget.js"
    item = traitlets.Dict().tag(sync=True)
    scales = traitlets.Dict({name: list(labels) for name, labels in SCALES.items()}).tag(sync=True)

    def __init__(
        self, file: str | Path, annotator: str, queries: Sequence[Query], responses: Iterable[Response],
        folder: str | Path,
    ) -> None:  # fmt: skip
        super().__init__()
        self.file, self.annotator, self.folder = storage.path(file), annotator, folder
        self.queries, self.responses = queries, defaultdict(list)
        for response in responses:
            self.responses[response.query].append(response)
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
            "responses": [response.text for response in self.shown],
            **counts,
        }

    def _received(self, _: Any, content: dict[str, Any], __: list[bytes]) -> None:
        """Save the work that the form sent, confirm it, show the next query."""
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
        """The records of the work that the form sent; ranks such as 1, 1, 3 become 1, 1, 2."""
        rows, query, item = content["rows"], self.item["query"], self.item["done"] + 1
        seconds, judgements = round(float(content["seconds"]) / len(self.shown), 1), []
        for place, (response, row) in enumerate(zip(self.shown, rows, strict=True), 1):
            scores = [row[scale] for scale in SCALES]
            rest = (row["reason"], seconds, place, item)
            judgements.append(Judgement(query, response.id, self.annotator, *scores, *rest))
        ids, ranks = tuple(response.id for response in self.shown), dense_ranks([row["rank"] for row in rows])
        return judgements, Ranking(query, self.annotator, ids, ranks, content["basis"])
