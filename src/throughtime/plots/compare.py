"""`compare`: the same quantity of two layers, models or training steps, side by side on one scale."""

from __future__ import annotations

from dataclasses import replace
from typing import Unpack

import numpy as np

from throughtime._arguments import takes
from throughtime._drawing.colors import Colors
from throughtime._errors import PictureError
from throughtime.picture import Panel, Picture
from throughtime.plots.arrange import arranged
from throughtime.plots.colored import OWN, colors
from throughtime.plots.data import Captured, Source, count, only_valid, read, title
from throughtime.plots.heatmap import few_samples, height_of
from throughtime.plots.images import panels_of
from throughtime.plots.look import Look, checked, size, titled

NOTE = (
    "Both sides have one colour scale, so the same colour is the same size. Norms of different models differ "
    "for many reasons: compare where colours change rather than which is brighter."
)


@takes(PictureError)
def compare(
    first: Captured,
    second: Captured,
    quantity: str = "hidden_gradient",
    *,
    names: tuple[str, str] | None = None,
    **look: Unpack[Look],
) -> Picture:
    """Draw two captures, layers or training steps as heatmaps side by side on shared limits.

    Parameters
    ----------
    first, second : capture with one layer, a layer, or DataArray
        Of two steps of a stored run: `run["lstm"].sel(step=0)` and `run["lstm"].sel(step=500)`.
    quantity : str
        A variable of both.
    names : two str, optional
        Titles of the two sides; by default their layers, and steps where they have one.
    **look
        See `tt.plots.Look`. With `share=False` each side is divided by its own largest magnitude.

    Returns
    -------
    Picture

    Raises
    ------
    SchemaError
        One of them lacks the quantity, or has several layers.
    PictureError
        They differ in what is apart: one has two directions, the other one.

    Examples
    --------
    >>> from throughtime import testing
    >>> picture = compare(testing.decaying(0.5), testing.decaying(0.9), names=("short", "long"))
    >>> left, right = picture.panels
    >>> left.title, right.title, left.marks[0].colors is right.marks[0].colors
    ('short', 'long', True)
    """
    look = checked(look)
    sources = [few_samples(read(each, quantity).latest(), (), None) for each in (first, second)]
    if look.get("share") is False:
        sources = [_divided(source) for source in sources]
    shown = np.concatenate([only_valid(source).values.ravel() for source in sources])
    fit = colors(sources[0], shown, look)
    sides = [_side(source, name, fit) for source, name in zip(sources, _names(sources, names), strict=True)]
    if len(sides[0]) != len(sides[1]):
        raise PictureError(
            f"The two sides have {len(sides[0])} and {len(sides[1])} panels, for directions or gates. Choose "
            "one of them: .sel(direction='forward')."
        )
    panels = tuple(panel for row in zip(*sides, strict=True) for panel in row)
    samples = [source.values.sizes.get("sample", 1) for source in sources]
    told = (
        count(samples[0], "sample") if samples[0] == samples[1] else f"{samples[0]} and {samples[1]} samples"
    )
    symbol = sources[0].magnitude if fit.scale.kind == "log10" else sources[0].symbol
    plain = replace(sources[0], where="", values=sources[0].values.reset_coords(drop=True))
    return Picture(
        panels,
        columns=2,
        **titled(look, "", title(plain, told, "compared", symbol=symbol.removesuffix(OWN))),
        note=NOTE,
        linked="xy" if len({(panel.x.limits, panel.y.limits) for panel in panels}) == 1 else "",
        **size(look, 12.0, height_of(panels, 2)),
    )


def _divided(source: Source) -> Source:
    values = only_valid(source).values
    largest = float(np.max(np.abs(values), where=np.isfinite(values), initial=0.0)) or 1.0
    return source.with_values(source.values / largest)


def _names(sources: list[Source], names: tuple[str, str] | None) -> list[str]:
    if names is not None:
        if len(names) != 2:
            raise PictureError(f"names={names!r}: expected two, one a side.")
        return [str(name) for name in names]
    found = []
    for place, source in enumerate(sources):
        step = source.values.coords.get("step")
        words = [source.where, f"step {step.item()}" if step is not None and step.ndim == 0 else ""]
        found.append(" · ".join(filter(None, words)) or ("first", "second")[place])
    return found if found[0] != found[1] else [f"first · {found[0]}", f"second · {found[1]}"]


def _side(source: Source, name: str, fit: Colors) -> list[Panel]:
    layout = arranged(source.values, None, "time", ())
    panels = panels_of(source, layout, fit)
    return [replace(panel, title=" · ".join(filter(None, (name, panel.title)))) for panel in panels]
