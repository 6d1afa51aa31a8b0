"""The old plots: the classic ones with their further options, and those of recurrent weights."""

import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import throughtime as tt
from throughtime._errors import ArgumentError, warn
from throughtime._vocabulary import WEIGHTS
from throughtime.compat._classic.frame import figure_path, save_figure

from .arguments import layers_of, mode_of, refuse, rename
from .arrays import MODES, labelled_weights

# Set on what a `show_features` function has drawn.
_FINISH = ("tight", "borderwidth", "bordercolor", "ylims", "savepath")


def features_0D(data: Any, **options: Any) -> Any:  # noqa: N802 - the name that people know
    """Draw one value for each unit of each sample. New code: `tt.show_features_0D`."""
    if "y_zero" in options:
        options["show_y_zero"] = options.pop("y_zero")
    return _draw("features_0D", tt.show_features_0D, data, options)


def features_1D(data: Any, n_rows: int | None = None, **options: Any) -> Any:  # noqa: N802 - as above
    """Draw each channel over time, one line for each sample. New code: `tt.show_features_1D`."""
    zero = [options.pop(name) for name in ("y_zero", "show_y_zero") if name in options]
    return _draw("features_1D", tt.show_features_1D, data, {"n_rows": n_rows, **options}, zero=any(zero))


def features_2D(data: Any, n_rows: int | None = None, **options: Any) -> Any:  # noqa: N802 - as above
    """Draw each sample as an image of channels over time. New code: `tt.show_features_2D`.

    `reflect_half=True` changes nothing, with a warning: both directions are in input time already.
    """
    if options.pop("reflect_half", False):
        warn("reflect_half=True has no effect: both directions of these arrays are in input time already.")
    return _draw("features_2D", tt.show_features_2D, data, {"n_rows": n_rows, **options})


def features_hist(data: Any, n_rows: int | None = None, **options: Any) -> Any:
    """Draw how values are distributed, a panel a channel. New code: `tt.show_features_hist`."""
    return _draw("features_hist", tt.show_features_hist, data, {"n_rows": n_rows, **options})


def features_hist_v2(
    data: Sequence[Any],
    colnames: Sequence[str] | None = None,
    side_annot: str | Sequence[str] | None = None,
    **options: Any,
) -> Any:
    """Draw a grid of histograms. New code: `tt.show_features_hist(arrays, n_rows=…)`.

    `data` has rows, each with one array a column, or is one row; `colnames` names the columns, `side_annot`
    the rows, or what stands before their numbers.
    """
    is_grid = all(isinstance(row, (list, tuple)) for row in data)
    grid = [list(row) for row in data] if is_grid else [list(data)]
    if isinstance(side_annot, str):
        side_annot = [f"{side_annot} {place}" for place in range(len(grid))]
    names, sides = colnames or [""] * len(grid[0]), side_annot or [""] * len(grid)
    if any(len(row) != len(names) for row in grid) or len(sides) != len(grid):
        raise ArgumentError(
            f"Rows have {[len(row) for row in grid]} arrays, colnames names {len(names)} columns, side_annot "
            f"{len(sides)} rows: expected rows of one length, with a name for each column and row."
        )
    labels = [" · ".join(filter(None, (side, name))) for side in sides for name in names]
    arrays = [np.asarray(array) for row in grid for array in row]
    grid_options = {"n_rows": len(grid), "by": "array", "annotations": labels, **options}
    return _draw("features_hist_v2", tt.show_features_hist, arrays, grid_options)


def hist_clipped(data: Any, peaks_to_clip: int = 1, **options: Any) -> Any:
    """Draw one histogram whose highest bars are cut. New code: `tt.show_features_hist(peaks_to_clip=…)`."""
    if "ax" in options:
        options["axes"] = options.pop("ax")
    clipped = {"by": "array", "peaks_to_clip": peaks_to_clip, **options}
    return _draw("hist_clipped", tt.show_features_hist, np.asarray(data), clipped)


def scalefig(fig: Any, **options: Any) -> None:
    """Scale a figure by the environment variable SCALEFIG. New code: `scale_width` and `scale_height`."""
    refuse("scalefig", options)
    text = os.environ.get("SCALEFIG", "1")
    if not re.fullmatch(r"\d*\.?\d+", text) or not float(text):
        raise ArgumentError(f"SCALEFIG={text!r}: expected a positive number, such as 0.75.")
    fig.set_size_inches(fig.get_size_inches() * float(text))


def rnn_heatmap(  # noqa: PLR0913 - the names that people know
    model: Any,
    _id: Any = None,
    *,
    layer: Any = None,
    mode: str = "weights",
    input_data: Any = None,
    labels: Any = None,
    norm: tuple[float, float] | None = None,
    cmap: str | None = None,
    absolute_value: bool = False,
    **options: Any,
) -> Any:
    """Draw a layer's weights, or with mode="grads" their gradients, as images. New code: `tt.plots.weights`.

    Returns a `Picture`: a notebook shows it, `savepath` or `tt.save` writes it. `norm` ends the scale of all
    weights, `absolute_value` drops signs, `bias=False` leaves biases out.
    """
    what = mode_of("rnn_heatmap", mode, MODES)
    savepath = options.pop("savepath", None)
    (each,) = layers_of(model, _id, layer)
    found = _choose_weights(labelled_weights(model, each, what, input_data, labels), "rnn_heatmap", options)
    if absolute_value:
        found, cmap = abs(found).assign_attrs(found.attrs), cmap or "Greys"
        norm = norm or (0.0, max(float(array.max()) for array in found.values()) or 1.0)
    share = None if norm is None else True
    gradient = what == "grads"
    picture = tt.plots.weights(found, gradient=gradient, limits=norm, cmap=cmap, share=share)
    if savepath is not None:
        tt.save(picture, savepath)
    return picture


def rnn_histogram(
    model: Any,
    _id: Any = None,
    *,
    layer: Any = None,
    mode: str = "weights",
    input_data: Any = None,
    labels: Any = None,
    equate_axes: bool | int = True,
    **options: Any,
) -> Any:
    """Draw histograms by gate, a row a weight. New code: `tt.show_features_hist(kernel, by="gate")`.

    Arguments as those of `rnn_heatmap` and `features_hist`; `equate_axes` 1 and 2 both share the limits.
    """
    what = mode_of("rnn_histogram", mode, MODES)
    (each,) = layers_of(model, _id, layer)
    found = _choose_weights(labelled_weights(model, each, what, input_data, labels), "rnn_histogram", options)
    rows = {}
    for way in found["direction"].values if "direction" in found.dims else (None,):
        for name, array in found.items():
            part = array if way is None else array.sel(direction=way)
            for gate in part["gate"].values if "gate" in part.dims else (None,):
                label = " · ".join(filter(None, (way, str(name).removesuffix("_gradient"), gate)))
                rows[label] = (part if gate is None else part.sel(gate=gate)).values
    n_rows = len(found.data_vars) * found.sizes.get("direction", 1)
    shown = {"n_rows": n_rows, "by": "array", "equate_axes": bool(equate_axes), **options}
    return _draw("rnn_histogram", tt.show_features_hist, rows, shown)


def _choose_weights(found: Any, name: str, options: dict[str, Any]) -> Any:
    """Keep weights, with biases unless they are to be left out; take their options away."""
    biases = {options.pop(each, True) for each in ("bias", "show_bias")} <= {True}
    if name == "rnn_heatmap":
        refuse(name, options)
    kept = [each for each in WEIGHTS if biases or "bias" not in each]
    return found[[each for each in found.data_vars if str(each).removesuffix("_gradient") in kept]]


def _draw(
    name: str, show: Callable[..., Any], data: Any, options: dict[str, Any], *, zero: bool = False
) -> Any:
    """Draw by a `show_features` function, then set what it does not take itself."""
    finish = {each: options.pop(each) for each in _FINISH if each in options}
    path = None if finish.get("savepath") is None else figure_path(finish["savepath"])
    shown = show(data, **rename(name, options, show))
    spines = {"linewidth": finish.get("borderwidth"), "edgecolor": finish.get("bordercolor")}
    given = {key: value for key, value in spines.items() if value is not None}
    for axes in np.ravel(np.asarray(shown.axes, object)):
        if zero:
            axes.axhline(0, color="black", linewidth=0.8)
        if finish.get("ylims") is not None:
            axes.set_ylim(*finish["ylims"])
        for spine in axes.spines.values() if given else ():
            spine.set(**given)
    if finish.get("tight"):
        shown.fig.get_layout_engine().set(w_pad=0, h_pad=0, wspace=0, hspace=0)
    if path is not None:
        save_figure(shown.fig, path)
    return shown
