"""Arguments by their old names: renamed, refused with the name of the successor, or passed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from throughtime._errors import ArgumentError, did_you_mean

_RENAMED = {
    "borders": "show_borders",
    "colorbar": "show_colorbar",
    "h": "scale_height",
    "share_xy": "equate_axes",
    "sharex": "equate_axes",
    "sharey": "equate_axes",
    "title": "show_title",
    "title_mode": "show_title",
    "w": "scale_width",
    "xy_ticks": "show_xy_ticks",
}
_TITLES = {"grads": "Gradients", "outputs": "Outputs"}
_EDIT = "edit the (fig, axes) that it returns, or draw into axes="
_CAPTURE = "tt.capture(model, x, y, layers=…, quantities=…)"
_SUCCESSORS = {
    "annotations": "names of channels come from the coordinates of a DataArray",
    "as_tensors": "layer.weights has the tensors; tt.weights(model, layer) has labelled arrays",
    "axis": "tt.weights(model, layer) has named dims to reduce over",
    "configs": _EDIT,
    "gate_sep_width": "tt.plots.weights separates gates by itself",
    "pad_xticks": _EDIT,
    "params": _CAPTURE,
    "stat_fns": "tt.weights(model, layer) has labelled arrays for any statistic",
    "subplot_samples": "show_features_2D draws one panel a sample",
    "subplots_kw": _EDIT,
}


def renamed(name: str, options: Mapping[str, Any], show: Callable[..., Any]) -> dict[str, Any]:
    """Return the options by the names that a `show_features` function takes."""
    found = {_RENAMED.get(option, option): value for option, value in options.items()}
    refuse(name, set(found) - set(inspect.signature(show).parameters), inspect.signature(show).parameters)
    title = found.get("show_title")
    if isinstance(title, str):
        found["show_title"] = _TITLES.get(title, title)
    if "equate_axes" in found:
        shared = found["equate_axes"]
        found["equate_axes"] = any(shared) if isinstance(shared, tuple | list) else bool(shared)
    return found


def refuse(name: str, unknown: Iterable[str], known: Iterable[str] = ()) -> None:
    """Raise for the first argument that a function does not take, with the successor."""
    for option in sorted(unknown):
        successor = _SUCCESSORS.get(option)
        hint = (
            f" Instead: {successor}."
            if successor
            else did_you_mean(option, known) or f" New code: {_CAPTURE}."
        )
        raise ArgumentError(f"see_rnn.{name}() takes no argument {option!r} here.{hint}")


def mode_of(name: str, mode: Any, known: Mapping[str, str]) -> str:
    """Return what a mode stands for."""
    if not isinstance(mode, str) or mode not in known:
        raise ArgumentError(
            f"see_rnn.{name}(mode={mode!r}): expected one of {', '.join(known)}.{did_you_mean(mode, known)} "
            f"New code names quantities: {_CAPTURE}."
        )
    return known[mode]
