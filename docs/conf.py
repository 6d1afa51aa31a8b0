"""Sphinx builds the site from this folder, the docstrings and examples/gallery: see scripts/docs."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
os.environ.setdefault("KERAS_BACKEND", "torch")  # Keras and PyTorch in one installation
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small networks lose time to threads
sys.path[:0] = [str(HERE), str(ROOT / "examples" / "gallery")]  # for _site, and for what the scripts share

import _examples  # noqa: E402 - the folder comes first
import _kernels  # noqa: E402
import _site  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402

import throughtime  # noqa: E402 - so does the backend

_kernels.use()

project = "throughtime"
author = copyright = "The throughtime authors"  # noqa: A001 - the name that Sphinx reads
version = release = throughtime.__version__.partition(".dev")[0]

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery/*.ipynb", "gallery/*.py", "**.ipynb_checkpoints"]
templates_path = ["_templates"]
default_role = "py:obj"
suppress_warnings = ["ref.python"]  # a method that two classes have, in a docstring
html_theme = "pydata_sphinx_theme"
html_title = "throughtime"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_context = {"default_mode": "auto"}
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": {"**": ["page-toc"], "index": [], "gallery/index": []},
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": [], "gallery/index": [], "release_notes": []}

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_output_stderr = "remove"  # warnings name files of the machine that built the site

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_use_plots = False

sphinx_gallery_conf = {
    "examples_dirs": ["../examples/gallery"],
    "gallery_dirs": ["gallery"],
    "filename_pattern": r"/\d",
    "ignore_pattern": r"^_",
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": ("_site.scraper",),
    "capture_repr": (),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "show_memory": False,
    "write_computation_times": False,
    "thumbnail_size": (480, 270),
    "reset_modules": (),
}


def setup(app: Sphinx) -> None:
    """Write what comes from elsewhere: the command's options and the notebooks of examples/."""
    app.connect("doctree-read", _site.describe_images)
    app.connect("autodoc-process-docstring", _examples.add_example, priority=0)
    (HERE / "reference" / "commands.md").write_text(_site.commands(), encoding="utf-8")
    for name, page in _site.PAGES.items():
        (HERE / page).write_text(_site.moved(ROOT / name, page), encoding="utf-8")
    for notebook in sorted((ROOT / "examples").glob("*.ipynb")):
        shutil.copy(notebook, HERE / "tutorials" / notebook.name)
