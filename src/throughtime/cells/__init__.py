"""States, gates and gradients of a recurrent layer, solved exactly from the results of its kernel, in NumPy.

Adapters pass a `Layer` and a `Pass`; `solve` returns every state, gate and gradient through time,
`step_jacobians` the Jacobians for diagnostics, and the certificate measures the errors.
"""

from .activations import ACTIVATIONS, Activation, activation
from .adjoint import solve
from .certificate import (
    PRECISIONS,
    Precision,
    bar,
    certificate_time,
    certificate_weights,
    input_terms,
    limit,
    states_before,
    step_sizes,
    summed_terms,
)
from .contribution import on_recurrent_side, step_contribution, sums_along
from .directions import along_directions, directions
from .jacobians import step_jacobians
from .layer import Layer, Pass
from .quantities import DEFINITIONS, QUANTITIES, WEIGHT_GRADIENTS

__all__ = [
    "ACTIVATIONS",
    "DEFINITIONS",
    "PRECISIONS",
    "QUANTITIES",
    "WEIGHT_GRADIENTS",
    "Activation",
    "Layer",
    "Pass",
    "Precision",
    "activation",
    "along_directions",
    "bar",
    "certificate_time",
    "certificate_weights",
    "directions",
    "input_terms",
    "limit",
    "on_recurrent_side",
    "solve",
    "states_before",
    "step_contribution",
    "step_jacobians",
    "step_sizes",
    "summed_terms",
    "sums_along",
]
