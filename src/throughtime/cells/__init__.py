"""What happens inside a recurrent layer, solved exactly from what the framework's kernel gave: NumPy only.

Adapters hand in a `Layer` and a `Pass`; `solve` gives every state, gate and gradient through time,
`step_jacobians` what diagnostics need beyond, and the certificate says whether to trust it.
"""

from .activations import ACTIVATIONS, Activation, activation
from .adjoint import solve
from .certificate import (
    bar,
    certificate_time,
    certificate_weights,
    input_terms,
    limit,
    states_before,
    step_sizes,
    summed_terms,
)
from .contribution import step_contribution
from .jacobians import step_jacobians
from .layer import Layer, Pass
from .quantities import DEFINITIONS, QUANTITIES, WEIGHT_GRADIENTS

__all__ = [
    "ACTIVATIONS",
    "DEFINITIONS",
    "QUANTITIES",
    "WEIGHT_GRADIENTS",
    "Activation",
    "Layer",
    "Pass",
    "activation",
    "bar",
    "certificate_time",
    "certificate_weights",
    "input_terms",
    "limit",
    "solve",
    "states_before",
    "step_contribution",
    "step_jacobians",
    "step_sizes",
    "summed_terms",
]
