"""The adapter for JAX programs: Flax NNX and Equinox modules, and any function that JAX can trace.

`models` makes a flat program of the model (`program`), `loop` and `gates` read its scans as layers, `taps`
adds zeros to their states, `computation` compiles loss and gradients as one program, `collect` makes records.
"""

from throughtime.adapters.jax.computation import losses as losses
from throughtime.adapters.jax.describe import describe as describe
from throughtime.adapters.jax.probe import Probe as Probe
from throughtime.adapters.jax.weights import load_weights as load_weights
from throughtime.adapters.jax.weights import weights_of as weights_of
