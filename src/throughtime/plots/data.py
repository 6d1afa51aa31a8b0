"""Reads the values, valid steps and names that a plot shows from a capture, a layer or a DataArray."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import xarray as xr

from throughtime._errors import PictureError, SchemaError
from throughtime._tree import Layer, keeps_norms, require, states
from throughtime._tree import layer as one_layer
from throughtime._vocabulary import LAGS, VARIABLES, label_of, words
from throughtime.diagnostics.lags import edges
from throughtime.picture._drawing.scale import Scale
from throughtime.plots.axes import labels, texts

Captured = Layer | xr.DataArray
UNITS = ("unit", "output_unit", "cell_unit", "feature")  # of which an array has one
IMAGE = ("row", "column", "depth", "channel")
_SUBSCRIPT = re.compile(r"_\(t\)|_[ts0](?![^\W_])")  # not within a name such as input_times
_PLAIN = {"_(t)": "ₜ", "_t": "ₜ", "_s": "ₛ", "_0": "₀"}
_SIGNED = ("step_contribution", LAGS, "lag_mean", "lag_ratio")  # norms, as the symbol shows


@dataclass(frozen=True)
class Source:
    """One variable of one layer: its values, its valid steps, and its names."""

    values: xr.DataArray
    valid: xr.DataArray | None
    name: str
    symbol: str
    where: str = ""
    edges: tuple[int, ...] = ()  # steps from which no gradient goes back

    @property
    def noun(self) -> str:
        """The quantity in words: "hidden gradient"."""
        own = self.name.removesuffix("_norm").replace("_", " ")
        return f"{own} state" if own in ("hidden", "cell") else own

    @property
    def is_gradient(self) -> bool:
        """Whether values span decades."""
        return self.name.endswith("_gradient") or self.name in _SIGNED or "gradient" in self.name

    @property
    def magnitude(self) -> str:
        """Symbol of the magnitude."""
        return self.symbol if "rms" in self.symbol or self.norm == self.symbol else f"|{self.symbol}|"

    @property
    def norm(self) -> str:
        """Symbol of the norm."""
        return self.symbol if "‖" in self.symbol or self.name in _SIGNED else f"‖{self.symbol}‖"

    def symbol_on(self, scale: Scale) -> str:
        """Symbol of what a scale shows: the magnitude on a logarithmic one."""
        return self.magnitude if scale.kind == "log10" else self.symbol

    def at(self, **chosen: Any) -> Source:
        """Select places along dims; a dim without labels gets the places as labels."""
        values, valid = self.values, self.valid
        for dim, places in chosen.items():
            values = values.isel({dim: places})
            if np.ndim(places) and dim not in values.coords:
                values = values.assign_coords({dim: places})
            if valid is not None and dim in valid.dims:
                valid = valid.isel({dim: places})
        return replace(self, values=values, valid=valid)

    def latest(self) -> Source:
        """Return the last training step of a stored run."""
        return replace(self, values=self.values.isel(step=-1)) if "step" in self.values.dims else self

    def with_values(self, values: xr.DataArray, symbol: str = "") -> Source:
        """Return other values of the same variable."""
        return replace(self, values=values, symbol=symbol or self.symbol)


def read(captured: Captured, quantity: str | None = None) -> Source:
    """Read one variable; a DataArray keeps its dims.

    The cells of an image, as in a ConvLSTM, become units in a row.

    SchemaError: there is not exactly one layer, the variable is empty, or the layer lacks it; the message
    names the call that captures it.
    """
    if isinstance(captured, xr.DataArray):
        name = str(captured.name or "value")
        _refuse_empty(captured, name)
        valid = captured.coords.get("valid")
        return Source(captured, valid, name, _timed(symbol_of(name), captured))
    dataset = one_layer(captured)
    wanted = quantity or "hidden_gradient"
    if wanted not in dataset and has(dataset, wanted):
        kept = read(captured, f"{wanted}_norm")  # of each sample: the run does not keep vectors
        return replace(kept, symbol=norm_symbol(wanted, states(dataset)))
    values = _flat(required(dataset, wanted))
    _refuse_empty(values, wanted)
    valid = dataset.get("valid")
    if valid is not None and "time" not in values.dims:
        valid = None
    symbol = _timed(symbol_of(wanted, states(dataset)), values)
    cuts = tuple(edges(dataset)) if "time" in values.dims else ()
    return Source(values, valid, wanted, symbol, where(captured), cuts)


def _refuse_empty(values: xr.DataArray, name: str) -> None:
    if empty := [str(dim) for dim, size in values.sizes.items() if size == 0]:
        raise SchemaError(f"{name!r} is empty along {', '.join(empty)}.")


def has(dataset: xr.Dataset, quantity: str) -> bool:
    """Whether a layer has a quantity, or a run keeps its norm for each sample."""
    norms = dataset.get(f"{quantity}_norm")
    return quantity in dataset or (norms is not None and "sample" in norms.dims)


def _flat(values: xr.DataArray) -> xr.DataArray:
    """Flatten the cells and channels of an image."""
    inside = [dim for dim in values.dims if dim in IMAGE]
    if not inside or unit_dim(values):
        return values
    return values.stack(unit=inside, create_index=False)


def _timed(symbol: str, values: xr.DataArray) -> str:
    """Remove the step from the symbol if the values have no time axis."""
    return symbol if "time" in values.dims else symbol.replace("ₜ", "")


def required(dataset: xr.Dataset, name: str) -> xr.DataArray:
    """Return a variable; the error names the call that captures it."""
    try:
        return require(dataset, name)
    except SchemaError as error:
        call = f"tt.capture(model, x, y, quantities=[{name!r}])"
        call = "tt.lag_matrix(model, x, y)" if name == LAGS else call
        is_recorded = keeps_norms(dataset) and name != LAGS
        known = name in VARIABLES and f"missing_{name}" not in dataset.attrs and not is_recorded
        raise SchemaError(f"{error} {call} captures it." if known else str(error)) from None


def where(captured: Layer) -> str:
    """Return the path of the layer without its first slash, or its name."""
    if isinstance(captured, xr.DataTree):
        leaf = next(node for node in captured.leaves if node.data_vars)
        return str(leaf.path).strip("/")
    return str(captured.attrs.get("layer", "")).strip("/")


def located(captured: Layer | str, dataset: xr.Dataset) -> str:
    """Name the layer and, for a stored run, the training step."""
    step = dataset.coords.get("step")
    place = f"step {step.item()}" if step is not None and step.ndim == 0 else ""
    return dotted(captured if isinstance(captured, str) else where(captured), place)


def symbol_of(name: str, own: Sequence[str] = ()) -> str:
    """Symbol of a variable, in Unicode: dL/dhₜ."""
    known = words(tuple(own)) if own else VARIABLES
    return _SUBSCRIPT.sub(lambda found: _PLAIN[found[0]], known[name].symbol if name in known else name)


def norm_symbol(name: str, own: Sequence[str] = ()) -> str:
    """Return the symbol of a quantity's norm over units; a norm keeps its symbol.

    `own` are the states of a custom cell.
    """
    symbol = symbol_of(name, own)
    return symbol if "‖" in symbol else f"‖{symbol}‖"


def layers(captured: Layer) -> list[tuple[str, xr.Dataset]]:
    """List the layers of a capture, or the one layer, with their paths."""
    if isinstance(captured, xr.DataTree):
        found = [(str(node.path).strip("/"), node.to_dataset()) for node in captured.leaves if node.data_vars]
        if found:
            return found
    return [(where(captured) if isinstance(captured, xr.Dataset) else "", one_layer(captured))]


def last_step(dataset: xr.Dataset) -> xr.Dataset:
    """Return the last training step of a stored run."""
    return dataset.isel(step=-1) if "step" in dataset.dims else dataset


def dim_called(values: xr.DataArray, name: str, what: str) -> str:
    """Find a dim by its name; "unit" stands for any dim of units."""
    if name in values.dims:
        return name
    alike = [str(dim) for dim in values.dims if dim in UNITS]
    if name in UNITS and alike:
        return alike[0]
    have = ", ".join(map(str, values.dims)) or "none"
    raise PictureError(f"{what}={name!r}: the values have no such axis. They have: {have}.")


def unit_dim(values: xr.DataArray) -> str | None:
    """Find the dim of units, or None."""
    return next((str(dim) for dim in values.dims if dim in UNITS), None)


def valid_for(source: Source, dims: Sequence[str], **at: int) -> Any:
    """Return the valid cells with exactly these dims, broadcastable; None if all are valid."""
    if source.valid is None:
        return None
    valid = source.valid.isel({dim: place for dim, place in at.items() if dim in source.valid.dims})
    valid = valid.isel({dim: 0 for dim in valid.dims if dim not in dims})
    missing = [dim for dim in dims if dim not in valid.dims]
    found = np.asarray(valid.expand_dims(missing).transpose(*dims).values, dtype=bool)
    return None if found.all() else found


def only_valid(source: Source, other: float = np.nan) -> xr.DataArray:
    """Replace the values of masked steps by NaN or another number."""
    values = source.values
    if source.valid is None:
        return values
    dims = [dim for dim in source.valid.dims if dim in values.dims]
    extra = {dim: 0 for dim in source.valid.dims if dim not in dims}
    counted = source.valid.isel(extra).drop_vars(list(source.valid.coords), errors="ignore")
    return values.where(counted, other)


def parts(values: xr.DataArray, kept: list[str]) -> list[tuple[str, xr.DataArray]]:
    """List the parts, one for each direction or gate, with their names."""
    dims = [str(dim) for dim in values.dims if dim not in kept]
    words = [labels(values, dim) for dim in dims]
    places = product(*(range(values.sizes[dim]) for dim in dims))
    return [
        (
            " · ".join(word[at] for word, at in zip(words, place, strict=True)),
            values.isel(dict(zip(dims, place, strict=True))),
        )
        for place in places
    ]


def dotted(*words: str) -> str:
    """Join the words that are not empty: "lstm · forward"."""
    return " · ".join(filter(None, words))


def count(number: int, noun: str) -> str:
    """Format a count: "1 sample", "16 samples"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def few_of(number: int, captured: Layer | xr.DataArray) -> str:
    """Count the samples that are drawn, of all that there are: "16 samples", "2 of 3 samples"."""
    tree = captured.subtree if isinstance(captured, xr.DataTree) else (captured,)
    total = max(int(each.sizes.get("sample", 0)) for each in tree)
    return f"{number} of {count(total, 'sample')}" if total > number else count(number, "sample")


def subject(where: str, what: str = "Gradient") -> str:
    """Name the subject of a sentence: "Gradient of lstm"."""
    return f"{what} of {where}" if where else what


def title(source: Source, *parts: str, symbol: str = "") -> str:
    """Join quantity, layer and the words of dims: "|dL/dhₜ| · lstm · 16 samples"."""
    named = [symbol or source.symbol, source.where, *parts, *_single(source.values)]
    return " · ".join(part for part in named if part)


def _single(values: xr.DataArray) -> list[str]:
    """Name each coordinate without a dim, such as the selected step of a run."""
    kept = ("sample", "step", "gate", "direction", "unit")
    found = {name: values.coords.get(label_of(name), values.coords.get(name)) for name in kept}
    scalars = {name: label for name, label in found.items() if label is not None and label.ndim == 0}
    return [f"{name} {texts(label.values[None])[0]}" for name, label in scalars.items()]
