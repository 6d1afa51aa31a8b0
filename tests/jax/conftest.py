"""JAX programs are tested in float64, without Keras."""

from __future__ import annotations

import jax

jax.config.update("jax_enable_x64", True)
