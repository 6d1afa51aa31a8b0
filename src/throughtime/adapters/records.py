"""What an adapter is asked and returns: frozen records of NumPy arrays, without any framework's objects.

`adapters/` fill these in, `_capture.label` turns them into the labelled tree; nothing else reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from throughtime.cells import Pass

Attribute = str | int | float
Array = npt.NDArray[Any]

# The reason given in `LayerRecord.missing` for a gradient that does not exist.
UNREACHED = "the loss does not depend on it"
# How a loss reduces samples, as the attribute `loss_reduction` says, where its parts can be added up.
MEAN, SUM, ONE_SAMPLE = "mean over samples", "sum over samples", "one sample"


@dataclass(frozen=True)
class Request:
    """What a capture asks of an adapter.

    `quantities` have the schema's names, and `gradients` are those that need labels. `cells` knows the
    derivative of `activations`; a cell with another one is for the adapter to solve.
    """

    quantities: frozenset[str]
    gradients: frozenset[str]
    activations: frozenset[str]
    training: bool


@dataclass(frozen=True, kw_only=True)
class DirectionRecord(Pass):
    """What one direction of a recurrent layer computed: all that its exact adjoint needs.

    Attributes
    ----------
    weights, weight_gradients : mapping of str to ndarray
        By the schema's names. Gradients come from the framework and hold what this call contributes:
        neither regularisers nor other calls of a shared layer.
    input_gradient : ndarray (sample, time, feature) or None
        The framework's, for the certificate.
    """

    weights: Mapping[str, Array]
    weight_gradients: Mapping[str, Array]
    input_gradient: Array | None


@dataclass(frozen=True)
class SolvedRecord:
    """One direction of one cell without closed forms, solved by the framework's own autodiff.

    Attributes
    ----------
    arrays : mapping of str to ndarray
        By the schema's names and those of the cell's own states; weight gradients and `input_gradient`
        among them. In input time, without a direction axis.
    weight_gradients, input_gradient
        What the layer's own loop gave, for the certificate. As in `DirectionRecord`.
    initial : tuple of ndarray
        States the pass started from.
    hidden_before : ndarray (sample, time, unit) or (sample, time, gate, unit), or None
        What met the recurrent kernel at each step, dropout included; None where that is no matrix product.
    kernel : ndarray (feature, [gate,] unit) or None
        The input's weights, where the input enters by a matrix product.
    output_error : float or None
        Relative error of the loop that was looked into against the layer's own kernel. None where only one of
        them ran, or where they draw other random numbers.
    gates, marks : tuple of str
        What `mark` has named inside: gates, and variables that are none.
    """

    arrays: Mapping[str, Array]
    weight_gradients: Mapping[str, Array]
    input_gradient: Array | None
    initial: tuple[Array | None, ...] = ()
    hidden_before: Array | None = None
    kernel: Array | None = None
    output_error: float | None = None
    gates: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerRecord:
    """One call of one layer.

    Attributes
    ----------
    path : str
        Where the leaf stands in the tree, `encoder/lstm` or `lstm@2` for a second call.
    kind : str
        `lstm`, `gru`, `simple_rnn`, `conv_lstm`, `rnn` for any other recurrent cell, else the layer's
        class in snake case.
    arrays : mapping of str to ndarray
        By the schema's variable names, axes in the schema's order. Along `time` always in the order
        of the layer's input.
    directions : tuple of str
        `("forward", "backward")` for a bidirectional layer, whose weights carry that axis first;
        empty otherwise.
    flags : mapping
        Configuration that a reader of the tree needs: activations, masks, dtype.
    missing : mapping of str to str
        Quantities that were asked for and do not exist here, each with the reason.
    inside : tuple of DirectionRecord or SolvedRecord
        One for each direction of a recurrent layer that can be looked into; else empty.
    states : tuple of str
        The cell's states that the schema has no word for, as the cell names them.
    gates, marks : tuple of str
        As `SolvedRecord` has them, once its arrays are the layer's.
    dims : mapping of str to tuple of str
        Axes of arrays that have others than the schema says.
    windows : tuple of int
        Steps of each call of a layer that is called window by window; empty elsewhere.
    outer_steps : int
        How often an outer layer called this one for each of its samples: `sample` runs over the outer
        samples, and for each over its outer steps. 0 where there is no outer layer.
    """

    path: str
    kind: str
    arrays: Mapping[str, Array]
    directions: tuple[str, ...] = ()
    flags: Mapping[str, Attribute] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    inside: tuple[DirectionRecord | SolvedRecord, ...] = ()
    states: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    dims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    windows: tuple[int, ...] = ()
    outer_steps: int = 0


@dataclass(frozen=True)
class ModelRecord:
    """All recorded layers of one model on one batch.

    Attributes
    ----------
    layers : tuple of LayerRecord
        In the order in which the model called them.
    attributes : mapping
        What holds for the whole capture: framework, batch origin, regularisation.
    loss : float or None
        The training loss of the batch, dimensionless; None without labels.
    reduction_factor : float or None
        What the loss multiplied each sample's gradient by: 1/B for a mean over B samples.
    weight : float
        What the batch counts for in a mean over several: its samples, or the valid steps where the loss
        averages over those.
    why_whole : str
        Why captures of parts of the batch would not add up to it; empty where they do.
    """

    layers: tuple[LayerRecord, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    loss: float | None = None
    reduction_factor: float | None = None
    weight: float = 1.0
    why_whole: str = ""


def escape(name: str) -> str:
    """Make one name safe as one step of a path: `/` and `@` have a meaning there.

    Examples
    --------
    >>> escape("encoder/lstm@home")
    'encoder%2Flstm%40home'
    """
    return name.replace("%", "%25").replace("/", "%2F").replace("@", "%40")
