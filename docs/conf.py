"""Documentation site: ``pip install -e ".[docs]"`` and ``sphinx-build -W docs site``."""

from importlib.metadata import version as installed

project, author = "hyrel", "the authors of hyrel"
release = version = installed("hyrel")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
]
root_doc = "contents"
html_theme = "furo"
html_title = f"hyrel {release}"
exclude_patterns = ["_build", "site"]
autodoc_typehints = "none"  # signatures show them
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring, napoleon_google_docstring = True, False
napoleon_use_rtype = False
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
suppress_warnings = ["myst.xref_missing", "ref.python"]  # links to files above this folder; attributes of one name
