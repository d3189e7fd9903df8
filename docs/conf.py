"""How Sphinx builds the site: ``sphinx-build -W -b html docs docs/_build/html``."""

import warnings
from importlib.metadata import version as version_of

import sphinx_gallery.gen_gallery
from skorch import NeuralNet

project = "sk-aft"
author = "the sk-aft developers"
copyright = author
release = version_of("sk-aft")
version = release

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates", "examples"]
templates_path = ["_templates"]
default_role = "literal"  # single backticks of docstrings are code
maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings say what is accepted, in more words
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
numpydoc_show_class_members = False  # the template lists methods with their documentation

html_theme = "pydata_sphinx_theme"
html_title = "sk-aft"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "show_prev_next": False,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
}
html_sidebars = {"index": [], "start": []}
html_show_sourcelink = False

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"plot_",
    "ignore_pattern": r"^(?!.*plot_\d\d_).*\.py$",
    "within_subsection_order": "FileNameSortKey",
    "doc_module": ("sk_aft",),
    "backreferences_dir": "reference/backreferences",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "remove_config_comments": True,
    "capture_repr": ("_repr_html_",),
    "min_reported_time": 1,
}
# Other folders of examples (a web page, a service) have a README.md and are no part of the gallery.
sphinx_gallery.gen_gallery.get_subsections = lambda *_, **__: []

warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")


# skorch calls these while it trains; users call fit and predict.
HOOKS_OF_SKORCH = {*dir(NeuralNet)} - {"fit", "partial_fit", "predict", "predict_proba"}


def leave_out(app, what, name, member, skip, options):
    """Leave out what skorch, PyTorch and scikit-learn document, and what Attributes lists."""
    if skip or what not in ("class", "exception"):
        return skip
    is_fitted_attribute = isinstance(member, property) and name.endswith("_")
    function = getattr(member, "fget", member)
    module = getattr(function, "__module__", "")
    is_own = module.startswith("sk_aft")
    is_hook = name in HOOKS_OF_SKORCH and module.startswith("sk_aft._student")
    is_routing = name.endswith("_request")
    return not is_own or is_fitted_attribute or is_hook or is_routing


def setup(app):
    """Connect what Sphinx calls."""
    app.connect("autodoc-skip-member", leave_out)
