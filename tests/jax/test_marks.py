"""`tt.mark` in JAX programs: values of a step, gates, and values outside of every loop."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.jax.programs import SAMPLES, STEPS, UNITS, U, W, X, Y, squared, unrolled

import throughtime as tt


def minimal(x: Any) -> Any:
    """A minimal gated unit, whose one gate and candidate are marked."""

    def step(hidden: Any, now: Any) -> Any:
        forget = tt.mark(jax.nn.sigmoid(now @ W + hidden @ U), "forget")
        drive = tt.mark(jnp.sin(now @ W + (forget * hidden) @ U), "drive")
        return ((1 - forget) * hidden + forget * drive,) * 2

    start = jnp.zeros((x.shape[0], UNITS))
    return jnp.sum(jax.lax.scan(step, start, jnp.swapaxes(x, 0, 1))[1] ** 2, (0, 2))[:, None]


def wanted() -> dict[str, Any]:
    def step(states: Any, x: Any, zeros: Any) -> Any:
        hidden = states["hidden"]
        forget = jax.nn.sigmoid(x @ W + hidden @ U) + zeros["forget"]
        drive = jnp.sin(x @ W + (forget * hidden) @ U) + zeros["drive"]
        hidden = (1 - forget) * hidden + forget * drive + zeros["hidden"]
        return {"hidden": hidden}, hidden

    zeros = jnp.zeros((SAMPLES, UNITS))

    def finish(outputs: Any, _: Any) -> Any:
        return jnp.sum((jnp.sum(jnp.stack(outputs) ** 2, (0, 2))[:, None] - Y) ** 2)

    def keeping(states: Any, x: Any, zeros: Any) -> Any:
        after, output = step(states, x, zeros)
        return {**after, "forget": states["forget"], "drive": states["drive"]}, output

    return unrolled(keeping, {"hidden": zeros, "forget": zeros, "drive": zeros}, finish)


def test_marked_values_of_a_step_have_their_total_derivatives() -> None:
    (leaf,) = tt.capture(minimal, X, Y, loss=squared).leaves
    oracle = wanted()
    found = {"forget": leaf["gate_gradient"].sel(gate="forget"), "drive": leaf["drive_gradient"]}
    for name, gradient in {**found, "hidden": leaf["hidden_gradient"]}.items():
        np.testing.assert_allclose(gradient, oracle[name], rtol=1e-10, atol=1e-14)
    assert leaf["gate_activation"].dims == ("sample", "time", "gate", "unit")
    assert float(leaf["certificate_weights"]) <= 1e-12
    assert "missing_gate_activation" not in leaf.attrs
    assert leaf["drive"].dims == ("sample", "time", "unit")


def test_a_mark_outside_of_every_loop_is_a_leaf() -> None:
    def model(x: Any) -> Any:
        sums = tt.mark(jax.lax.associative_scan(jnp.add, x @ W, axis=1), "running_sum")
        return jnp.sum(sums**2, (1, 2))[:, None]

    (leaf,) = tt.capture(model, X, Y, loss=squared).leaves
    sums = np.cumsum(X @ W, 1)
    assert leaf.path == "/running_sum"
    np.testing.assert_allclose(leaf["output"], sums, rtol=1e-12)
    error = 2 * ((sums**2).sum((1, 2)) - Y[:, 0])
    np.testing.assert_allclose(leaf["output_gradient"], error[:, None, None] * 2 * sums, rtol=1e-10)


def test_names_of_others_are_left_alone() -> None:
    def model(x: Any) -> Any:
        def step(hidden: Any, now: Any) -> Any:
            hidden = jax.ad_checkpoint.checkpoint_name(jnp.tanh(now @ W + hidden @ U), "mine")
            return hidden, hidden

        start = jnp.zeros((x.shape[0], UNITS))
        return jnp.sum(jax.lax.scan(step, start, jnp.swapaxes(x, 0, 1))[1], (0, 2))[:, None]

    (leaf,) = tt.capture(model, X, Y, loss=squared).leaves
    assert leaf.attrs["kind"] == "simple_rnn"
    assert leaf.sizes["time"] == STEPS
    assert "mine" not in leaf


@pytest.mark.parametrize("around", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_a_mark_changes_nothing_outside_of_a_capture(around: Any) -> None:
    marked = around(lambda x: tt.mark(x * 2, "double"))(jnp.ones(3))
    np.testing.assert_array_equal(marked, np.full(3, 2.0))
