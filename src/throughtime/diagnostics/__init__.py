"""Measures of what flows through time: each takes one captured layer and returns labelled numbers.

Each measure has its own file. Measures read only the tree, so they accept a capture, a stored run (lazily,
with its `step` dim) and the synthetic trees of `throughtime.testing`.
"""

from throughtime.diagnostics.boundary_leak import Leak, boundary_leak
from throughtime.diagnostics.decay_rate import decay_rate
from throughtime.diagnostics.effective_steps import effective_steps
from throughtime.diagnostics.first_difference import Difference, first_difference
from throughtime.diagnostics.first_nonfinite import NonFinite, first_nonfinite
from throughtime.diagnostics.gradient_instability import gradient_instability
from throughtime.diagnostics.lag_profile import lag_profile, ratio_text
from throughtime.diagnostics.last_step import from_last_step
from throughtime.diagnostics.lyapunov_spectrum import lyapunov_exponents, lyapunov_spectrum
from throughtime.diagnostics.memory_horizon import horizon_text, memory_horizon, memory_horizon_median
from throughtime.diagnostics.recurrent_spectrum import recurrent_spectrum, transient_growth
from throughtime.diagnostics.retention import retention, sensitivity
from throughtime.diagnostics.saturation import saturation
from throughtime.diagnostics.state_jacobian import state_jacobian
from throughtime.diagnostics.temporal_coherence import temporal_coherence
from throughtime.diagnostics.timescale import timescale
from throughtime.diagnostics.unit_correlation import unit_correlation
from throughtime.diagnostics.vanishing_fraction import vanishing_fraction
from throughtime.diagnostics.weight_norms import weight_norms

__all__ = [
    "Difference", "Leak", "NonFinite", "boundary_leak", "decay_rate", "effective_steps",
    "first_difference", "first_nonfinite", "from_last_step", "gradient_instability", "horizon_text",
    "lag_profile", "lyapunov_exponents", "lyapunov_spectrum", "memory_horizon", "memory_horizon_median",
    "ratio_text", "recurrent_spectrum", "retention", "saturation", "sensitivity", "state_jacobian",
    "temporal_coherence", "timescale", "transient_growth", "unit_correlation", "vanishing_fraction",
    "weight_norms",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
