"""Requests to an adapter and its results: frozen records of NumPy arrays, without any framework's objects.

`adapters/` fill these in, `_capture.label` turns them into the labelled tree; nothing else reads them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from throughtime.cells import Pass

Attribute = str | int | float
Array = npt.NDArray[Any]

# The reason given in `LayerRecord.missing` for a gradient that does not exist.
UNREACHED = "the loss does not depend on it"
# How a loss reduces samples, by its attribute `loss_reduction`, where its parts can be added up.
MEAN, SUM, ONE_SAMPLE = "mean over samples", "sum over samples", "one sample"


@dataclass(frozen=True)
class Request:
    """The request of a capture to an adapter.

    `quantities` have the schema's names, and `gradients` are those that need labels. `cells` knows the
    derivative of `activations`; a cell with another one is for the adapter to solve.
    """

    quantities: frozenset[str]
    gradients: frozenset[str]
    activations: frozenset[str]
    training: bool


@dataclass(frozen=True, kw_only=True)
class DirectionRecord(Pass):
    """The arrays of one direction of a recurrent layer: all that its exact adjoint needs.

    Weight gradients come from the framework and hold what this call contributes: neither regularisers nor
    other calls of a shared layer.
    """

    weights: Mapping[str, Array]  # by the schema's names
    weight_gradients: Mapping[str, Array]
    input_gradient: Array | None  # the framework's, for the certificate
    initial_gradients: tuple[Array | None, ...] = ()  # dL/d(initial state) past the first step


@dataclass(frozen=True)
class SolvedRecord:
    """One direction of one cell, solved by the framework's own autodiff.

    `arrays` have the schema's names and those of the cell's own states, weight gradients and `input_gradient`
    among them, in input time and without a direction axis. `output_error` is None where the loop that was
    looked into and the layer's own kernel cannot be compared.
    """

    arrays: Mapping[str, Array]
    # this and `input_gradient` from the layer's loop, for the certificate
    weight_gradients: Mapping[str, Array]
    input_gradient: Array | None
    initial: tuple[Array | None, ...] = ()  # states the pass started from
    # (sample, time, [gate,] unit) that met the recurrent kernel, where that is a product
    hidden_before: Array | None = None
    kernel: Array | None = None  # (feature, [gate,] unit), where the input enters by a product
    output_error: float | None = None  # relative, of the loop against the layer's own kernel
    gates: tuple[str, ...] = ()  # this and `marks`: what `mark` has named inside
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerRecord:
    """One call of one layer, along `time` always in the order of its input.

    `missing` has quantities that were asked for and do not exist here, each with the reason. With
    `outer_steps` `sample` runs over the outer samples, and for each over its outer steps.
    """

    path: str  # of the leaf: `encoder/lstm`, `lstm@2` for a second call
    kind: str  # of the cell, `rnn` for any other, else the class in snake case
    arrays: Mapping[str, Array]  # by the schema's names
    directions: tuple[str, ...] = ()  # ("forward", "backward"), whose weights carry that axis first
    flags: Mapping[str, Attribute] = field(default_factory=dict)  # activations, masks, dtype
    missing: Mapping[str, str] = field(default_factory=dict)
    inside: tuple[DirectionRecord | SolvedRecord, ...] = ()  # one a direction that can be looked into
    states: tuple[str, ...] = ()  # that the schema has no word for, as the cell names them
    gates: tuple[str, ...] = ()  # this and `marks` as `SolvedRecord` has them
    marks: tuple[str, ...] = ()
    # of arrays whose dims are not the schema's
    dims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    windows: tuple[int, ...] = ()  # steps of each call of a layer that is called window by window
    outer_steps: int = 0  # calls by an outer layer for each of its samples, 0 without one


@dataclass(frozen=True)
class ModelRecord:
    """All recorded layers of one model on one batch."""

    layers: tuple[LayerRecord, ...]  # in call order
    # framework, batch origin, regularisation
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    loss: float | None = None  # of the batch; None without labels
    # what the loss multiplied each sample's gradient by: 1/B for a mean
    reduction_factor: float | None = None
    is_undone: bool = False  # gradients are those of the loss of each sample, except those of weights
    weight: float = 1.0  # in a mean over several batches: its samples, or valid steps
    why_whole: str = ""  # why captures of parts would not add up; empty where they do


def to_snake_case(name: str) -> str:
    """Write a class name in snake case: SimpleRNN is simple_rnn, LSTMCell lstm_cell."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def escape(name: str) -> str:
    """Make one name safe as one step of a path: `/` and `@` have a meaning there."""
    return name.replace("%", "%25").replace("/", "%2F").replace("@", "%40")
