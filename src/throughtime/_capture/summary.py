"""`summary`: the layers of a model in words: cells, directions, gates in order, weights and penalties."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

from throughtime._capture.weights import PENALTY, described, in_order, weight_names
from throughtime._common.text.tables import Paragraph, Part, Shown, Table
from throughtime._inputs import takes
from throughtime._tree import recorded_steps
from throughtime._vocabulary import CLASSES, GATES

if TYPE_CHECKING:
    from throughtime._monitor.overview import Overview

_FLAGS = ("return_sequences", "go_backwards", "stateful")
_FRAMEWORKS = {"keras": "Keras", "torch": "PyTorch"}
_COLUMNS = ("layer", "weight", "dims", "shape", "parameters", "penalty")
_TWO_BIASES = (
    "A GRU that resets after the matrix product has two biases: its reset gate multiplies U·h + "
    "recurrent_bias in the candidate, so the two cannot be merged."
)
_TORCH_BIASES = "torch adds two biases, bias and recurrent_bias: together they act as one."


@dataclass(frozen=True)
class WeightSummary:
    """One array of weights: its name, dims, shape, and the penalty of its regulariser."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    penalty: float | None = None

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return prod(self.shape)


@dataclass(frozen=True)
class LayerSummary:
    """One layer: its path, its kind, its weights."""

    path: str
    kind: str
    units: int | None
    directions: tuple[str, ...]
    gates: tuple[str, ...]
    settings: tuple[str, ...]
    notes: tuple[str, ...]
    weights: tuple[WeightSummary, ...]

    @property
    def parameters(self) -> int:
        """Number of parameters of all its weights."""
        return sum(weight.parameters for weight in self.weights)

    @property
    def penalty(self) -> float | None:
        """Penalty of its regularisers in the loss; None without regularisers."""
        given = [weight.penalty for weight in self.weights if weight.penalty is not None]
        return sum(given) if given else None


@dataclass(frozen=True, repr=False)
class Summary(Shown):
    """All layers; prints as a table in a terminal and in a notebook.

    Attributes
    ----------
    title : str
        Framework, version and backend.
    layers : tuple of LayerSummary
    """

    title: str
    layers: tuple[LayerSummary, ...]

    @property
    def parameters(self) -> int:
        """Number of parameters of all layers."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def notes(self) -> tuple[str, ...]:
        """Explanations of the table, each once."""
        return tuple(dict.fromkeys(note for layer in self.layers for note in layer.notes))

    def to_dataframe(self) -> pd.DataFrame:
        """Return one row for each weight: layer, weight, dims, shape, parameters, penalty."""
        rows = [
            (layer.path, weight.name, weight.dims, weight.shape, weight.parameters, weight.penalty)
            for layer in self.layers
            for weight in layer.weights
        ]
        return pd.DataFrame(rows, columns=_COLUMNS)

    def __parts__(self) -> Iterator[Part]:
        yield Paragraph(self._headline(), bold=True)
        rows = tuple(
            row for layer in self.layers for row in ((_heading(layer),), *map(_cells, layer.weights))
        )
        yield Table(rows, numbers=(2, 3))
        yield from map(Paragraph, self.notes)

    def _headline(self) -> str:
        count = len(self.layers)
        known = [f"{self.parameters:,} parameters"] if any(layer.weights for layer in self.layers) else []
        return ", ".join([f"{self.title}: {count} layer{'s' * (count != 1)}", *known])


@takes()
def summary(model_or_tree: Any, *, layers: Any = "recurrent") -> Summary | Overview:
    """Summarise a model's layers (cells, directions, gates, weights, penalties), or a run's training.

    Parameters
    ----------
    model_or_tree : model, capture, one layer of a capture, or run
        A model is only read; it need not be compiled.
    layers : see `capture`
        Layers of a model.

    Returns
    -------
    Summary, or Overview of a run
        Prints in a terminal and a notebook. `.layers`, `.parameters` and `.to_dataframe()` are for code; that
        of a run has `.headline`, `.history`, which `.to_dataframe()` returns, and `.alarms`.

    Raises
    ------
    StoreError
        The run is damaged.

    Examples
    --------
    >>> from throughtime import summary, testing
    >>> print(summary(testing.constant_gates(kind="gru", units=4)).layers[0].gates)
    ('update', 'reset', 'candidate')
    """
    if isinstance(model_or_tree, xr.Dataset):
        name = str(model_or_tree.attrs.get("layer_name", model_or_tree.attrs.get("kind", "layer")))
        return Summary("A captured layer", (_layer(name, model_or_tree),))
    is_tree = isinstance(model_or_tree, xr.DataTree)
    if is_tree and recorded_steps(model_or_tree):
        from throughtime._monitor.overview import overview  # noqa: PLC0415 - a view from a higher room

        return overview(model_or_tree)
    tree = model_or_tree if is_tree else described(model_or_tree, layers)
    found = tuple(_layer(leaf.path.strip("/"), leaf.to_dataset()) for leaf in in_order(tree))
    return Summary(_title(tree.root.attrs), found)


def _title(attributes: Mapping[Any, Any]) -> str:
    name = str(attributes.get("framework", "A captured model"))
    framework = _FRAMEWORKS.get(name, name)
    version, backend = attributes.get("framework_version"), attributes.get("backend")
    return f"{framework}{f' {version}' * bool(version)}{f' on {backend}' * bool(backend)}"


def _layer(path: str, captured: xr.Dataset) -> LayerSummary:
    attributes = captured.attrs
    kind = str(attributes.get("kind", ""))
    units = attributes.get("units", captured.sizes.get("unit"))
    return LayerSummary(
        path=path,
        kind=CLASSES.get(kind, str(attributes.get("cell_class", attributes.get("layer_class", kind)))),
        units=None if units is None else int(units),
        directions=tuple(map(str, captured.coords.get("direction", xr.DataArray([])).values)),
        gates=tuple(map(str, captured["gate"].values if "gate" in captured.coords else GATES.get(kind, ()))),
        settings=tuple(_settings(attributes)),
        notes=((_TWO_BIASES if kind == "gru" else _TORCH_BIASES),) if "recurrent_bias" in captured else (),
        weights=tuple(_weight(captured, name) for name in weight_names(captured)),
    )


def _weight(captured: xr.Dataset, name: str) -> WeightSummary:
    array = captured[name]
    penalty = captured.get(f"{name}{PENALTY}")
    return WeightSummary(
        name=name,
        dims=tuple(map(str, array.dims)),
        shape=array.shape,
        penalty=None if penalty is None else float(penalty.sum()),
    )


def _settings(attributes: Mapping[str, Any]) -> Iterator[str]:
    """List activations, flags that are on, and unusual settings."""
    given = (attributes.get("activation"), attributes.get("recurrent_activation"))
    if activations := [str(name) for name in given if name]:
        yield " and ".join(activations)
    yield from (name for name in _FLAGS if attributes.get(name))
    if "merge_mode" in attributes:
        yield f"merge_mode {attributes['merge_mode']}"
    if attributes.get("reset_after") == 0:
        yield "resets before the product"
    if attributes.get("trainable") == 0:
        yield "frozen"
    if "dtype" in attributes:
        yield str(attributes["dtype"])


def _heading(layer: LayerSummary) -> str:
    """Describe a layer in one line."""
    units = "" if layer.units is None else f", {layer.units} units"
    ways = ", both directions" * (len(layer.directions) > 1)
    gates = f"gates {', '.join(layer.gates)}" if layer.gates else ""
    return " · ".join(filter(None, [f"{layer.path}: {layer.kind}{units}{ways}", gates, *layer.settings]))


def _cells(weight: WeightSummary) -> tuple[str, ...]:
    named = ("" if "_axis_" in dim else dim for dim in weight.dims)  # an axis without a name
    dims = " × ".join(f"{size} {dim}" for dim, size in zip(named, weight.shape, strict=True))
    penalty = "" if weight.penalty is None else f"penalty {weight.penalty:.3g}"
    return weight.name, dims, f"{weight.parameters:,}", penalty
