"""Sphinx's settings for the book: nothing is executed, nothing is fetched, equations are MathML."""

project = "MM-RLHF compendium"
author = "the contributors of the MM-RLHF compendium"
copyright = ""
extensions = ["myst_nb", "sphinxcontrib.bibtex", "mmrlhf_study.pipeline.book.mathml"]
exclude_patterns = ["executed"]
suppress_warnings = ["mystnb.unknown_mime_type"]

numfig = True
add_module_names = False
toc_object_entries = False

nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show = nb_code_prompt_hide = "Code"
nb_ipywidgets_js = {}
nb_render_text_lexer = "none"
nb_render_markdown_format = "myst"
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"
bibtex_reference_style = "author_year"

html_theme = "sphinx_book_theme"
html_title = project
html_math_renderer = "mathml"
html_static_path = ["book.css"]
html_css_files = ["book.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_search_summary = False  # excerpts are fetched, which a browser refuses for files
html_show_sphinx = False
html_show_copyright = False
html_last_updated_fmt = None
html_permalinks_icon = "#"
html_theme_options = {
    "navbar_persistent": [],  # the side bar has the search already
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
    "home_page_in_toc": True,
    "toc_title": "On this page",
    "pygments_light_style": "a11y-light",
}
