"""Measures of what flows through time: each takes one captured layer and gives labelled numbers.

One file a measure. They read the tree only, so they work on a capture, on a stored run (with its `step`
dim, lazily) and on the synthetic trees of `throughtime.testing` alike.
"""

from throughtime.diagnostics.censoring import horizon_text as horizon_text
from throughtime.diagnostics.censoring import ratio_text as ratio_text
from throughtime.diagnostics.decay_rate import decay_rate as decay_rate
from throughtime.diagnostics.effective_steps import effective_steps as effective_steps
from throughtime.diagnostics.first_nonfinite import NonFinite as NonFinite
from throughtime.diagnostics.first_nonfinite import first_nonfinite as first_nonfinite
from throughtime.diagnostics.gradient_instability import gradient_instability as gradient_instability
from throughtime.diagnostics.lag_profile import lag_profile as lag_profile
from throughtime.diagnostics.last_step import from_last_step as from_last_step
from throughtime.diagnostics.lyapunov_spectrum import lyapunov_exponents as lyapunov_exponents
from throughtime.diagnostics.lyapunov_spectrum import lyapunov_spectrum as lyapunov_spectrum
from throughtime.diagnostics.memory_horizon import memory_horizon as memory_horizon
from throughtime.diagnostics.memory_horizon import memory_horizon_median as memory_horizon_median
from throughtime.diagnostics.recurrent_spectrum import recurrent_spectrum as recurrent_spectrum
from throughtime.diagnostics.recurrent_spectrum import transient_growth as transient_growth
from throughtime.diagnostics.retention import retention as retention
from throughtime.diagnostics.retention import sensitivity as sensitivity
from throughtime.diagnostics.saturation import saturation as saturation
from throughtime.diagnostics.temporal_coherence import temporal_coherence as temporal_coherence
from throughtime.diagnostics.timescale import timescale as timescale
from throughtime.diagnostics.unit_correlation import unit_correlation as unit_correlation
from throughtime.diagnostics.vanishing_fraction import vanishing_fraction as vanishing_fraction
from throughtime.diagnostics.weight_norms import weight_norms as weight_norms
