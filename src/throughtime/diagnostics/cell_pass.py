"""Converts a captured layer for `cells`: its weights, and one pass along the captured trajectory.

Measures that need more than the captured gradients evaluate the cell's equations from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from throughtime.cells import Layer, Pass

NEEDED = ("kernel", "recurrent_kernel", "input", "hidden")
OPTIONAL = ("bias", "recurrent_bias", "cell", "initial_hidden", "initial_cell")

Values = Mapping[str, npt.NDArray[Any]]


def cell_layer(of: Values, attributes: Mapping[Any, Any]) -> Layer:
    """Return the weights and activations of one direction of a standard cell.

    Examples
    --------
    >>> from throughtime import testing
    >>> leaf = testing.decaying()["rnn"]
    >>> cell_layer({name: leaf[name].values for name in NEEDED}, leaf.attrs).kind
    'simple_rnn'
    """
    return Layer(
        kind=str(attributes.get("kind")),
        kernel=of["kernel"],
        recurrent_kernel=of["recurrent_kernel"],
        bias=of.get("bias"),
        recurrent_bias=of.get("recurrent_bias"),
        activation=str(attributes.get("activation", "tanh")),
        recurrent_activation=str(attributes.get("recurrent_activation", "sigmoid")),
        reset_after=bool(attributes.get("reset_after", 1)),
    )


def cell_pass(of: Values, *, backward: bool) -> Pass:
    """Return the forward pass of one direction, without gradients."""
    return Pass(
        inputs=of["input"],
        hidden=of["hidden"],
        valid=None if of.get("valid") is None else np.asarray(of["valid"], dtype=bool),
        runs_backward=backward,
        initial=(of.get("initial_hidden"), of.get("initial_cell")),
    )
