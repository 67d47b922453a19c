"""An executed notebook as one HTML file that needs no network: equations as MathML, pictures inside, no scripts."""

import re

import nbformat
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from traitlets.config import Config

# Code keeps its dollars; display equations come before inline ones.
_PIECES = re.compile(r"(```.*?```|`[^`\n]*`)|\$\$(.+?)\$\$|(?<![\\$])\$([^$\n]+?)\$", re.DOTALL)

_TEMPLATE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block jupyter_widgets %}{% endblock %}
"""


def _mathml(match: re.Match[str]) -> str:
    code, display, inline = match.groups()
    if code is not None:
        return code
    mode = "inline" if display is None else "block"
    return convert((inline if display is None else display).strip(), display=mode).replace("\n", "")


def to_html(notebook: nbformat.NotebookNode, title: str) -> str:
    """The page of an executed notebook; the notebook itself is not run again."""
    page = nbformat.from_dict(notebook)
    page.metadata["title"] = title
    page.metadata.pop("widgets", None)
    for cell in page.cells:
        if cell.cell_type == "markdown":
            cell.source = _PIECES.sub(_mathml, cell.source)
    config = Config()
    config.HTMLExporter.preprocessors = ["nbconvert.preprocessors.CoalesceStreamsPreprocessor"]
    body, _ = HTMLExporter(config=config, raw_template=_TEMPLATE).from_notebook_node(page)
    return body
