"""Programs of Flax Linen and Haiku through their `apply`, against the same cells stepped in Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from tests.jax.programs import SAMPLES, STEPS, UNITS, X, Y, squared

import throughtime as tt

hk = pytest.importorskip("haiku")

DOUBLE = {"dtype": jnp.float64, "param_dtype": jnp.float64}
STARTS = np.zeros((STEPS, SAMPLES), bool)
STARTS[[2, 3, 4], [1, 0, 1]] = True
Step = Callable[[Any, Any, int], Any]  # carry, x_t, number of the step
Program = tuple[Any, Step, Any]  # model, the same step by hand, the first carry


class Encoder(linen.Module):
    """A layer of Linen whose last carry is read."""

    cell: Any

    @linen.compact
    def __call__(self, x: Any) -> Any:
        carry, _ = linen.RNN(self.cell, return_carry=True)(x)
        return jnp.sum(jax.tree.leaves(carry)[-1] ** 2, -1, keepdims=True)


def in_linen(cell: Any) -> Program:
    model = Encoder(cell)
    variables = model.init(jax.random.key(0), X)

    def step(carry: Any, now: Any, _: int) -> Any:
        return cell.apply({"params": variables["params"]["cell"]}, carry, now)[0]

    start = cell.initialize_carry(jax.random.key(0), X[:, 0].shape)
    return jax.tree_util.Partial(model.apply, variables), step, start


def in_haiku(core: Callable[[], Any], starts: Any = None) -> Program:
    def entering(now: Any, number: Any) -> Any:
        return now if starts is None else (now, starts[number])

    def whole(x: Any) -> Any:
        made = core()
        inputs = entering(jnp.swapaxes(x, 0, 1), slice(None))
        _, last = hk.dynamic_unroll(made, inputs, double(made.initial_state(x.shape[0])))
        return jnp.sum(jax.tree.leaves(last)[0] ** 2, -1, keepdims=True)

    model = hk.without_apply_rng(hk.transform(whole))
    parameters = double(model.init(jax.random.key(0), X))
    one = hk.without_apply_rng(hk.transform(lambda now, carry: core()(now, carry)[1]))

    def step(carry: Any, now: Any, number: int) -> Any:
        return one.apply(parameters, entering(now, number), carry)

    start = hk.without_apply_rng(hk.transform(lambda: core().initial_state(SAMPLES))).apply({})
    return jax.tree_util.Partial(model.apply, parameters), step, double(start)


def double(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)


# Each with the place of h among the leaves of its carry.
PROGRAMS: dict[str, tuple[Callable[[], Program], int]] = {
    "linen_lstm": (lambda: in_linen(linen.LSTMCell(UNITS, **DOUBLE)), -1),
    "linen_optimized_lstm": (lambda: in_linen(linen.OptimizedLSTMCell(UNITS, **DOUBLE)), -1),
    "linen_gru": (lambda: in_linen(linen.GRUCell(UNITS, **DOUBLE)), -1),
    "linen_mgu": (lambda: in_linen(linen.MGUCell(UNITS, **DOUBLE)), -1),
    "linen_simple": (lambda: in_linen(linen.SimpleCell(UNITS, **DOUBLE)), -1),
    "haiku_lstm": (lambda: in_haiku(lambda: hk.LSTM(UNITS)), 0),
    "haiku_gru": (lambda: in_haiku(lambda: hk.GRU(UNITS)), 0),
    "haiku_vanilla": (lambda: in_haiku(lambda: hk.VanillaRNN(UNITS)), 0),
    "haiku_reset": (lambda: in_haiku(lambda: hk.ResetCore(hk.LSTM(UNITS)), STARTS), 0),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_states_and_their_gradients_are_those_of_the_steps_by_hand(name: str) -> None:
    build, place = PROGRAMS[name]
    model, step, start = build()
    (leaf,) = tt.capture(model, X, Y, loss=squared).leaves
    flat, structure = jax.tree.flatten(start)
    assert flat[place].shape == (SAMPLES, UNITS)

    def loss(zeros: Any, x: Any) -> Any:
        carry, seen = start, []
        for t in range(STEPS):
            each = jax.tree.leaves(step(carry, x[:, t], t))
            each[place] = each[place] + zeros[t]
            seen.append(each[place])
            carry = jax.tree.unflatten(structure, each)
        return jnp.sum(squared(jnp.sum(seen[-1] ** 2, -1, keepdims=True), Y)), seen

    zeros = jnp.zeros((STEPS, SAMPLES, UNITS))
    (of_hidden, of_input), seen = jax.grad(loss, argnums=(0, 1), has_aux=True)(zeros, jnp.asarray(X))
    wanted = {"hidden": jnp.stack(seen), "hidden_gradient": of_hidden}
    for variable, values in wanted.items():
        np.testing.assert_allclose(leaf[variable], jnp.moveaxis(values, 0, 1), rtol=0, atol=1e-12)
    np.testing.assert_allclose(leaf["input_gradient"], of_input, rtol=0, atol=1e-12)
    assert float(leaf["certificate_time"].max()) <= 1e-12
    assert float(leaf["certificate_weights"].max()) <= 1e-12
    if name == "haiku_reset":
        np.testing.assert_array_equal(leaf["reset"], STARTS.T)
        assert (leaf["carried_gradient"].values[:, :-1][STARTS.T[:, 1:]] == 0).all()
        assert tt.diagnostics.boundary_leak(leaf.to_dataset(), STARTS.T) == []
