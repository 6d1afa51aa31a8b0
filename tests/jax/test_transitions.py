"""Resets, masks and several cells in one scan, against loops unrolled in Python."""

from __future__ import annotations

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tests.jax.programs import FEATURES, SAMPLES, STEPS, UNITS, Reader, U, W, X, Y, bare, rnn, squared

import throughtime as tt
from throughtime.adapters.jax.taps import Taps
from throughtime.diagnostics.lags import edges

STARTS = np.zeros((SAMPLES, STEPS), bool)
STARTS[:, 0] = STARTS[0, 3] = STARTS[1, 2] = STARTS[1, 5] = True
ZEROS = jnp.zeros((SAMPLES, UNITS))


class Policy(eqx.Module):
    """An LSTM over a rollout that resets where an episode starts, or has one of three faults."""

    cell: eqx.nn.LSTMCell
    how: str = eqx.field(static=True)

    def __call__(self, x: Any, starts: Any) -> Any:
        def step(state: Any, now: Any) -> Any:
            x, start = now
            if self.how == "where":
                state = jax.tree.map(lambda one: jnp.where(start, 0, one), state)
            elif self.how == "product":
                state = jax.tree.map(lambda one: (1 - start.astype(one.dtype)) * one, state)
            elif self.how == "only h":
                state = jnp.where(start, 0, state[0]), state[1]
            after = self.cell(x, state)
            if self.how == "exit":
                return jax.tree.map(lambda one: jnp.where(start, 0, one), after), after[0]
            return after, after[0]

        start = jnp.zeros(UNITS), jnp.zeros(UNITS)
        return jax.lax.scan(step, start, (x, starts))[1]


def captured(how: str, starts: Any) -> Any:
    model = Policy(eqx.nn.LSTMCell(FEATURES, UNITS, key=jax.random.key(0)), how)
    y = np.zeros((SAMPLES, STEPS, UNITS))
    (leaf,) = tt.capture(model, (X, starts), y, loss=squared).leaves
    return leaf


def late(starts: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros_like(starts[:, :1]), starts[:, :-1]], 1)


@pytest.mark.parametrize("how", ["where", "product", "exit"])
def test_nothing_crosses_a_reset(how: str) -> None:
    # At the end of a step the flag of the next one decides.
    given = np.concatenate([STARTS[:, 1:], STARTS[:, :1] & False], 1) if how == "exit" else STARTS
    leaf = captured(how, given)
    assert leaf.attrs["kind"] == "lstm"
    wanted = STARTS.copy()
    wanted[:, 0] = False
    np.testing.assert_array_equal(leaf["reset"], wanted)
    carried = leaf["carried_gradient"].values[:, :-1]
    assert not carried[wanted[:, 1:]].any()
    assert carried[~wanted[:, 1:]].all()
    assert tt.diagnostics.boundary_leak(leaf, STARTS) == []
    assert float(leaf["certificate_weights"]) <= 1e-12
    assert float(leaf["certificate_time"]) <= 1e-12


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["values", "entering"])
@pytest.mark.filterwarnings("ignore:The certificate")
def test_the_certificate_sees_that_a_loop_has_gone_on_with_other_values(
    name: str, reverse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: Any) -> Any:
        final, seen = usual(*arguments)
        return final, seen._replace(**{name: {k: jnp.roll(v, 1, 0) for k, v in getattr(seen, name).items()}})

    usual = Taps._run
    model = partial(bare, reverse=reverse)
    (right,) = tt.capture(model, X, Y, loss=squared).leaves
    monkeypatch.setattr(Taps, "_run", run)
    (wrong,) = tt.capture(partial(bare, reverse=reverse), X, Y, loss=squared).leaves
    assert float(right["certificate_weights"]) <= 1e-12
    assert float(wrong["certificate_weights"]) >= 0.1


@pytest.mark.parametrize("ends_in_reset", [False, True])
@pytest.mark.parametrize(("dtype", "scale"), [(jnp.float32, 2.0**-80), (jnp.float16, 2.0**-12)])
def test_carried_gradients_whose_squares_underflow(dtype: Any, scale: float, ends_in_reset: bool) -> None:
    def fold(x: Any) -> Any:
        def step(state: Any, now: Any) -> Any:
            after = jnp.tanh(now @ W.astype(dtype) + state @ U.astype(dtype))
            return jnp.where(now[:, :1] > 1, 0, after) if ends_in_reset else after, None

        start = jnp.zeros((len(x), UNITS), dtype)
        return jax.lax.scan(step, start, jnp.swapaxes(x, 0, 1))[0].sum(1, keepdims=True)

    def carried(scale: float) -> np.ndarray:
        data = X.astype(dtype), Y.astype(dtype)
        (leaf,) = tt.capture(fold, *data, loss=lambda output, y: (output - y) * scale).leaves
        assert list(edges(leaf.to_dataset())) == []
        return leaf["carried_gradient"].values.astype(np.float64)

    usual = carried(1.0)
    assert (usual[:, 2:-1].max(0) > 0).all()
    np.testing.assert_allclose(carried(scale) / scale, usual, rtol=0.1, atol=1e-2 * usual.max())


def test_every_way_to_reset_has_the_same_states_and_gradients() -> None:
    one = captured("where", STARTS)
    for how in ("product", "exit"):
        given = np.concatenate([STARTS[:, 1:], STARTS[:, :1] & False], 1) if how == "exit" else STARTS
        other = captured(how, given)
        for name in ("hidden", "cell_gradient", "gate_gradient", "carried_by_state", "step_contribution"):
            np.testing.assert_allclose(one[name], other[name], rtol=1e-10, atol=1e-14, err_msg=name)


def leaks(leaf: Any) -> set[tuple[int, int, str]]:
    found = tt.diagnostics.boundary_leak(leaf, STARTS)
    return {(one.sample, one.time, one.state) for one in found}


def test_planted_faults_are_named_by_sample_step_and_state() -> None:
    places = {(0, 3), (1, 2), (1, 5)}
    both = {(*place, state) for place in places for state in ("hidden", "cell")}
    assert leaks(captured("none", STARTS)) == both
    assert leaks(captured("where", late(STARTS))) == both
    assert leaks(captured("only h", STARTS)) == {(*place, "cell") for place in places}


def test_the_gradient_that_goes_back_is_that_of_a_zero_added_between_two_steps() -> None:
    leaf, cell = captured("where", STARTS), eqx.nn.LSTMCell(FEATURES, UNITS, key=jax.random.key(0))

    def loss(zeros: Any) -> Any:
        state, found = (ZEROS, ZEROS), 0.0
        for t in range(STEPS):
            entering = (one + zero[t] for one, zero in zip(state, zeros, strict=True))
            reset = tuple(jnp.where(STARTS[:, t, None], 0, one) for one in entering)
            state = jax.vmap(cell)(jnp.asarray(X[:, t]), reset)
            found += jnp.sum(state[0] ** 2)
        return found / (STEPS * UNITS)

    zeros = jnp.zeros((STEPS, SAMPLES, UNITS))
    for name, back in zip(("hidden", "cell"), jax.grad(loss)((zeros, zeros)), strict=True):
        wanted = np.linalg.norm(back, axis=-1).T[:, 1:]
        np.testing.assert_allclose(leaf["carried_by_state"].sel(state=name)[:, :-1], wanted, rtol=1e-10)


def test_a_jacobian_is_that_of_autodiff_and_0_across_a_reset() -> None:
    model = Policy(eqx.nn.LSTMCell(FEATURES, UNITS, key=jax.random.key(0)), "where")
    starts, y = STARTS & (np.arange(STEPS) > 0), np.zeros((SAMPLES, STEPS, UNITS))
    wanted = ["all", "state_jacobian"]
    (leaf,) = tt.capture(model, (X, starts), y, loss=squared, quantities=wanted).leaves
    states = np.concatenate([leaf["hidden"], leaf["cell"]], -1)

    def step(state: Any, x: Any, start: Any) -> Any:
        both = jax.tree.map(lambda one: jnp.where(start, 0, one), (state[:UNITS], state[UNITS:]))
        return jnp.concatenate(model.cell(x, both))

    for sample, t in ((0, 1), (0, 3), (2, 5)):
        one = jax.jacobian(step)(states[sample, t - 1], X[sample, t], STARTS[sample, t])
        np.testing.assert_allclose(leaf["state_jacobian"][sample, t], one, rtol=1e-10, atol=1e-14)
    assert not leaf["state_jacobian"][0, 3].any()
    exponents = tt.diagnostics.lyapunov_spectrum(leaf)
    assert np.isneginf(exponents[0]).any()
    assert np.isfinite(exponents[2]).all()


@pytest.mark.parametrize("reverse", [False, True])
def test_a_jacobian_is_that_of_the_closed_form(reverse: bool) -> None:
    model = Reader(rnn(nnx.GRUCell, reverse=reverse, keep_order=reverse))
    own = tt.capture(model, X, Y, loss=squared, quantities=["all", "state_jacobian"])["layers/0"]
    closed = tt.diagnostics.state_jacobian(tt.capture(model, X, Y, loss=squared)["layers/0"])
    inner = slice(None, -1) if reverse else slice(1, None)
    np.testing.assert_allclose(own["state_jacobian"][:, inner], closed[:, inner], rtol=1e-9, atol=1e-13)


def test_a_jacobian_is_0_across_a_reset_at_the_end_of_a_step() -> None:
    wanted = ["all", "state_jacobian"]
    cell = eqx.nn.LSTMCell(FEATURES, UNITS, key=jax.random.key(0))
    starts, y = STARTS & (np.arange(STEPS) > 0), np.zeros((SAMPLES, STEPS, UNITS))
    ends = np.concatenate([starts[:, 1:], starts[:, :1]], 1)
    one, other = (
        tt.capture(Policy(cell, how), (X, flags), y, loss=squared, quantities=wanted)
        for how, flags in (("where", starts), ("exit", ends))
    )
    (one,), (other,) = one.leaves, other.leaves
    np.testing.assert_allclose(other["state_jacobian"], one["state_jacobian"], rtol=1e-10, atol=1e-14)
    assert not other["state_jacobian"][0, 3].any()


@pytest.mark.parametrize("how", ["select", "rest", "not", "swapped"])
def test_a_mask_keeps_the_state_and_is_shown(how: str) -> None:
    valid = np.arange(STEPS) < np.array([[6], [3], [1]])

    def fold(weights: Any, x: Any) -> Any:
        def step(hidden: Any, now: Any) -> Any:
            x, keep = now
            new, keep = jnp.tanh(x @ weights["w"] + hidden @ weights["u"]), keep[:, None]
            hidden = {
                "select": lambda: jnp.where(keep, new, hidden),
                "rest": lambda: keep.astype(float) * new + (1.0 - keep.astype(float)) * hidden,
                "not": lambda: keep * new + ~keep * hidden,
                "swapped": lambda: hidden * (1 - keep) + new * keep,
            }[how]()
            return hidden, hidden

        pair = jnp.swapaxes(x[0], 0, 1), jnp.swapaxes(x[1], 0, 1)
        return jax.lax.scan(step, jnp.zeros((x[0].shape[0], UNITS)), pair)[0].sum(1, keepdims=True)

    model = jax.tree_util.Partial(lambda weights, x, keep: fold(weights, (x, keep)), {"w": W, "u": U})
    (leaf,) = tt.capture(model, (X, valid), Y, loss=squared).leaves
    assert leaf.attrs["kind"] == "simple_rnn"
    np.testing.assert_array_equal(leaf["valid"], valid)
    assert not leaf["reset"].any()

    def loss(zeros: Any) -> Any:
        hidden = ZEROS
        for t in range(STEPS):
            hidden = jnp.where(valid[:, t, None], jnp.tanh(X[:, t] @ W + hidden @ U), hidden) + zeros[t]
        return jnp.sum(squared(hidden.sum(1, keepdims=True), Y))

    zeros = jnp.zeros((STEPS, SAMPLES, UNITS))
    wanted = np.swapaxes(jax.grad(loss)(zeros), 0, 1)
    np.testing.assert_allclose(leaf["hidden_gradient"], wanted, rtol=1e-10, atol=1e-14)
    assert float(leaf["certificate_weights"]) <= 1e-12


class Stack(eqx.Module):
    cells: list[Any]

    def __call__(self, xs: Any) -> Any:
        def step(states: Any, x: Any) -> Any:
            after = []
            for cell, state in zip(self.cells, states, strict=True):
                after.append(cell(x, state))
                x = after[-1][0] if isinstance(after[-1], tuple) else after[-1]
            return after, x

        zeros = jnp.zeros(UNITS)
        start = [(zeros, zeros) if isinstance(cell, eqx.nn.LSTMCell) else zeros for cell in self.cells]
        return jax.lax.scan(step, start, xs)[1][-1]


@pytest.mark.parametrize("kinds", [("LSTMCell", "GRUCell"), ("GRUCell", "GRUCell"), ("LSTMCell", "LSTMCell")])
def test_cells_stepped_in_one_scan_are_the_leaves_of_scans_one_after_another(kinds: tuple[str, str]) -> None:
    keys = jax.random.split(jax.random.key(1), 2)
    sizes = (FEATURES, UNITS)
    cells = [
        getattr(eqx.nn, kind)(size, UNITS, key=key)
        for kind, size, key in zip(kinds, sizes, keys, strict=True)
    ]
    y = np.zeros((SAMPLES, UNITS))
    together = tt.capture(Stack(cells), X, y, loss=squared)
    assert [leaf.path for leaf in together.leaves] == ["/cells/0", "/cells/1"]

    class Apart(eqx.Module):
        cells: list[Any]

        def __call__(self, xs: Any) -> Any:
            for cell in self.cells:
                xs = _scanned(cell, xs)
            return xs[-1]

    apart = tt.capture(Apart(cells), X, y, loss=squared)
    for path in ("cells/0", "cells/1"):
        one, other = together[path], apart[path]
        assert one.attrs["kind"] == other.attrs["kind"]
        for name in other.data_vars:
            if not str(name).startswith("certificate"):
                np.testing.assert_allclose(
                    one[name], other[name], rtol=1e-9, atol=1e-13, err_msg=f"{path} {name}"
                )
        assert float(one["certificate_weights"]) <= 1e-12
        assert float(one["certificate_time"]) <= 1e-12


def _scanned(cell: Any, xs: Any) -> Any:
    def step(state: Any, x: Any) -> Any:
        after = cell(x, state)
        return after, after[0] if isinstance(after, tuple) else after

    zeros = jnp.zeros(UNITS)
    return jax.lax.scan(step, (zeros, zeros) if isinstance(cell, eqx.nn.LSTMCell) else zeros, xs)[1]


@pytest.mark.parametrize("both_ways", [False, True])
def test_padding_after_the_lengths_of_sequences_is_not_valid(both_ways: bool) -> None:
    lengths = np.array([6, 3, 1])

    class Last(nnx.Module):
        def __init__(self) -> None:
            one, other = rnn(nnx.GRUCell), rnn(nnx.GRUCell, seed=1)
            self.reader = nnx.Bidirectional(one, other, rngs=nnx.Rngs(0)) if both_ways else one

        def __call__(self, x: Any, lengths: Any) -> Any:
            carry, _ = self.reader(x, seq_lengths=lengths, return_carry=True)
            return sum(carry) if both_ways else carry

    model, y = Last(), np.zeros((SAMPLES, UNITS))
    leaf = next(iter(tt.capture(model, (X, lengths), y, loss=squared).leaves))
    np.testing.assert_array_equal(leaf["valid"], np.arange(STEPS) < lengths[:, None])
    np.testing.assert_array_equal(leaf["input"], X)
    for sample, length in enumerate(lengths):
        rows = slice(sample, sample + 1)
        alone = next(iter(tt.capture(model, (X[rows, :length], lengths[rows]), y[rows], loss=squared).leaves))
        for name in ("hidden", "hidden_gradient", "gate_gradient", "input_gradient"):
            found = leaf[name][rows, :length]
            np.testing.assert_allclose(found, alone[name], rtol=1e-9, atol=1e-13, err_msg=name)
        assert not leaf["hidden_gradient"][rows, length:].any()
