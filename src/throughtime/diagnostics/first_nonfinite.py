"""Finds the origin of a NaN or infinity: the first one in the order in which the numbers were computed.

Searches a whole capture; the other measures only exclude and count samples with such values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from throughtime._errors import SchemaError
from throughtime._inputs import takes
from throughtime._tree import Layer
from throughtime.diagnostics.labelled import apply
from throughtime.diagnostics.places import first_place, leaves, listed, name_of


@dataclass(frozen=True)
class NonFinite:
    """One number that is not finite, and its place.

    Attributes
    ----------
    layer : str
        Path in the tree; "" for a Dataset.
    variable : str
    value : float
        NaN, inf or −inf.
    where : mapping of str to int or str
        By dim: an index, or the label if the dim has labels (gate, direction).
    """

    layer: str
    variable: str
    value: float
    where: Mapping[str, int | str] = field(default_factory=dict)

    def __str__(self) -> str:
        places = f": {listed(self.where)}" if self.where else ""
        return f"{self.value} in {self.variable} of {name_of(self.layer)}{places}"


@takes(SchemaError)
def first_nonfinite(captured: Layer) -> NonFinite | None:
    """Find the first NaN or infinity of a capture: by training step, then in the order of computation.

    This order is: weights, the forward pass step by step, the loss, the backward pass from the last processed
    step back, weight gradients. Layers come in the order of the tree, in the backward pass in reverse. Masked
    steps are skipped; the first of several samples is reported. A capture does not hold every intermediate
    value (no pre-activations), so "first" means the first in the capture.

    Parameters
    ----------
    captured : a capture with any number of layers, one layer, or Dataset
        Lazy arrays are read one after another.

    Returns
    -------
    NonFinite, or None if all values are finite

    Examples
    --------
    >>> from throughtime import testing
    >>> print(first_nonfinite(testing.nonfinite("cell", sample=1, time=7, unit=2)))
    nan in cell of rnn: sample 1, time 7, unit 2
    """
    place = first_place(captured, lambda path, name, values: ~apply(np.isfinite, values, types=[bool]))
    if place is None:
        return None
    value = leaves(captured)[place.path][place.variable].isel(place.index)
    return NonFinite(place.path, place.variable, float(np.asarray(value)), place.labels)
