"""Equations as MathML, made when the book is built: a page needs no script and no network to show them."""

from docutils.nodes import SkipNode, math, math_block
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator


def _write(translator: HTML5Translator, node: math | math_block, display: str) -> None:
    text = convert(node.astext().strip(), display=display).replace("\n", "")
    translator.body.append(f'<div class="equation">{text}</div>' if display == "block" else text)
    raise SkipNode


def inline(translator: HTML5Translator, node: math) -> None:
    _write(translator, node, "inline")


def block(translator: HTML5Translator, node: math_block) -> None:
    _write(translator, node, "block")


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls when it loads the extension."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
