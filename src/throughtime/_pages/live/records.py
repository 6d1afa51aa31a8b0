"""Numbers of a run as the page draws them: of one layer, direction and quantity, a row a recorded step.

Reads the variables it needs and nothing else, whatever level the run was recorded at.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from throughtime._common.text.printable import printable
from throughtime._monitor.levels import QUANTILES, reduce_tree
from throughtime._tree import recorded_steps, state_gradients
from throughtime._vocabulary import CERTIFICATES
from throughtime.diagnosis.layers import FULL, level

Floats = npt.NDArray[np.float64]
MIDDLE = QUANTILES.index(0.5)
_OTHERS = ("output_gradient", "input_gradient", "step_contribution")
_KEPT = {"step", "quantile", "sample", "time", "direction"}


@dataclass(frozen=True)
class View:
    """The choice of a reader: a layer by its path, one of its directions or "", and a quantity over time."""

    layer: str
    direction: str
    quantity: str

    @property
    def name(self) -> str:
        """Layer and direction, as they can be shown."""
        return printable(f"{self.layer} {self.direction}".strip())


@dataclass(frozen=True)
class Rows:
    """Recorded steps in their order, a row each.

    `norms` (row, quantile, time) are quantiles over samples of the norm over units, NaN where a step is
    masked in all samples. `ratios` (row, lag) are medians over samples of the error signal as a share of lag
    0, without lags where it is not known.
    """

    steps: npt.NDArray[np.int64]
    loss: Floats
    norms: Floats
    ratios: Floats


def stride(count: int, most: int) -> int:
    """Return the least power of 2 such that one of so many records is drawn, and at most `most` of `count`.

    >>> stride(4, most=4), stride(5, most=4), stride(10, most=4)
    (1, 2, 4)
    """
    return 1 << (max(1, -(-count // most)) - 1).bit_length()


def views(tree: xr.DataTree) -> dict[str, tuple[list[str], list[str]]]:
    """Directions and quantities of each layer that has something over time."""
    found = {}
    for node in tree.leaves:
        leaf = node.to_dataset()
        quantities = _quantities(leaf)
        if quantities:
            found[_path(node)] = (_directions(leaf), quantities)
    return found


def _path(node: xr.DataTree) -> str:
    return node.path.strip("/") or "layer"


def _directions(leaf: xr.Dataset) -> list[str]:
    return [str(name) for name in leaf["direction"].values] if "direction" in leaf.coords else [""]


def _quantities(leaf: xr.Dataset) -> list[str]:
    names = [*state_gradients(leaf), *_OTHERS]
    if level(leaf) == FULL:
        return [name for name in names if name in leaf and "time" in leaf[name].dims]
    return [name for name in names if _is_drawn(leaf.get(f"{name}_norm"))]


def _is_drawn(norms: xr.DataArray | None) -> bool:
    return norms is not None and "time" in norms.dims and set(norms.dims) <= _KEPT


def read(tree: xr.DataTree, view: View, places: Sequence[int]) -> Rows:
    """Read some recorded steps, by their places."""
    leaf = next(node.to_dataset() for node in tree.leaves if _path(node) == view.layer)
    if level(leaf) == FULL:
        parts = [_summarized(leaf, view, place) for place in places]
        taken = xr.concat(parts, "step") if parts else _summarized(leaf, view, 0).isel(step=slice(0))
    else:
        names = [name for name in ("loss", "lag_ratio", f"{view.quantity}_norm") if name in leaf]
        taken = leaf[names].isel(step=_indexer(places)).load()
    if view.direction and "direction" in taken.dims:
        taken = taken.sel(direction=view.direction)
    norms = taken[f"{view.quantity}_norm"]
    if "sample" in norms.dims:
        norms = norms.quantile(list(QUANTILES), "sample")
    none = np.full((len(places), 0), np.nan)
    lags = taken["lag_ratio"].transpose("step", "lag").values if "lag_ratio" in taken else none
    loss = taken["loss"].values if "loss" in taken else np.full(len(places), np.nan)
    drawn = norms.transpose("step", "quantile", "time").values
    steps = np.asarray(leaf["step"].values)[list(places)]
    return Rows(steps.astype(np.int64), *(np.asarray(each, float) for each in (loss, drawn, lags)))


def _indexer(places: Sequence[int]) -> Any:
    """Give neighbours as a slice, which is read without looking for each."""
    is_run = len(places) > 0 and places[-1] - places[0] + 1 == len(places)
    return slice(places[0], places[-1] + 1) if is_run else list(places)


def _summarized(leaf: xr.Dataset, view: View, place: int) -> xr.Dataset:
    """Reduce one record that was stored in full, as a monitor would have."""
    taken = ["loss", "valid", *CERTIFICATES, "lag_matrix", view.quantity, *state_gradients(leaf)]
    one = leaf[[name for name in dict.fromkeys(taken) if name in leaf]].isel(step=place).load()
    summary = reduce_tree(xr.DataTree.from_dict({"/layer": one.drop_vars("step")}), "summary")
    reduced: xr.Dataset = summary["layer"].to_dataset()
    return reduced.expand_dims("step")


def saturation(tree: xr.DataTree, view: View, start: int) -> dict[str, Floats]:
    """Share of a layer's gate values at either end of their range, by gate; empty where none was stored."""
    leaf = next(node.to_dataset() for node in tree.leaves if _path(node) == view.layer)
    if not {"saturation_left", "saturation_right"} <= set(leaf.data_vars):
        return {}
    both = leaf[["saturation_left", "saturation_right"]].isel(step=slice(start, None)).load()
    both = both.sel(direction=view.direction) if view.direction and "direction" in both.dims else both
    ends = both["saturation_left"] + both["saturation_right"]
    return {str(gate): np.asarray(ends.sel(gate=gate), float) for gate in ends["gate"].values}


def of_training_loop(tree: xr.DataTree, start: int) -> dict[str, Floats]:
    """Norm of the gradients and share of clipped steps, as far as the training loop passed them."""
    names = {"gradient_norm": "gradient norm", "clip_ratio": "clip ratio", "clipped_share": "clipped share"}
    return {
        words: np.asarray(tree[name].isel(step=slice(start, None)).values, float)
        for name, words in names.items()
        if name in tree.data_vars
    }


def losses(tree: xr.DataTree, start: int) -> Floats:
    """Loss of each recorded step from a place on; NaN where none was stored."""
    for node in tree.leaves:
        leaf = node.to_dataset()
        if "loss" in leaf:
            return np.asarray(leaf["loss"].isel(step=slice(start, None)).values, float)
    return np.full(max(0, len(recorded_steps(tree)) - start), np.nan)
