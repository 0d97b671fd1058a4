"""How the site is built: ``make docs`` for all of it, ``sphinx-build -t quick`` without what takes minutes."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import site_pages
from camlucida.common.version import __version__

QUICK = tags.has("quick")  # type: ignore[name-defined]  # noqa: F821

project = "camlucida"
author = "The camlucida maintainers"
copyright = author  # noqa: A001
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
    "site_pages",
]
exclude_patterns = ["_build", "tutorials/*.rst"]
suppress_warnings = ["config.cache"]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_class_signature = "mixed"
napoleon_use_ivar = True
html_math_renderer = "mathml"
pygments_style = "friendly"

sphinx_gallery_conf = {
    "examples_dirs": "tutorials",
    "gallery_dirs": "built/tutorials",
    "filename_pattern": r"plot_",
    "plot_gallery": "False" if QUICK else "True",
    "abort_on_example_error": True,
    "within_subsection_order": "FileNameSortKey",
    "capture_repr": ("__repr__",),
    "ignore_repr_types": r"PairExplanation",
    "image_scrapers": (site_pages.scrape,),
    "reset_modules": (),
    "remove_config_comments": True,
    "download_all_examples": False,
    "show_signature": False,
    "min_reported_time": 0,
    "write_computation_times": False,
}

html_theme = "furo"
html_title = f"camlucida {__version__}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["../llms.txt", "schemas"]
html_show_sphinx = False
html_copy_source = False
