"""A plot as a frame in a notebook, which contains the drawing library once for all frames."""

import sys
from typing import Any
from uuid import uuid4

from throughtime.picture import Picture
from throughtime.picture._drawing.theme import Theme
from throughtime.picture._render import bokeh
from throughtime.picture._render.alt import alt
from throughtime.picture._render.page import library, page, template

_NO_LIBRARY = "<p>The cell with the drawing library was cleared. Restart the kernel and run all cells.</p>"
_holder: list[str] = []  # the cell whose output has the library


def in_a_frame(picture: Picture, theme: Theme) -> str:
    """Return a plot as a frame, isolated from the notebook in both directions."""
    before, after = page(picture, theme).split(str(library()))
    return template("frame.html").render(
        id=f"throughtime-{uuid4().hex}",
        height=int(picture.height * bokeh.PIXELS_AN_INCH) + 170 + 60 * len(picture.sliders),
        title=alt(picture),
        is_held=_is_held(),
        library=str(library()),
        before=before,
        after=after,
        message=_NO_LIBRARY,
    )


def _is_held() -> bool:
    """Whether the output of another cell of this notebook has the library; noted if this one has it now."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    kernel: Any = getattr(shell, "kernel", None)
    if kernel is None or "google.colab" in sys.modules:  # Colab keeps the outputs of cells apart
        return False
    cell = str(kernel.get_parent().get("metadata", {}).get("cellId", ""))
    if _holder and (not cell or _holder != [cell]):
        return True
    _holder[:] = [cell]
    return False
