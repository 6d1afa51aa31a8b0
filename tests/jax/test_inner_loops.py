"""Loops within the body of a loop, against the same loops unrolled in Python, or written as one loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tests.jax.programs import DOUBLE, FEATURES, SAMPLES, STEPS, UNITS, U, W, X, Y, bare, squared

import throughtime as tt

OUTER, INNER, LAYERS = 3, 2, 2
V = 0.5 * np.random.default_rng(3).normal(size=(UNITS, UNITS))
ZEROS = jnp.zeros((SAMPLES, UNITS))
Taps = Callable[[str, Any, Any], Any]


def segments(x: Any) -> Any:
    """(sample, time, feature) to (outer step, inner step, sample, feature)."""
    return jnp.swapaxes(x, 0, 1).reshape(OUTER, INNER, x.shape[0], -1)


def inner(hidden: Any, x: Any, scale: Any = 1.0) -> Any:
    return (jnp.tanh(x @ W + hidden @ (U * scale)),) * 2


def continuing(hidden: Any, xs: Any) -> Any:
    """The inner loop goes on from where the one before ended."""
    hidden, steps = jax.lax.scan(inner, hidden, xs)
    return hidden, jnp.sum(steps**2, (0, 2))


def anew(hidden: Any, xs: Any) -> Any:
    """The inner loop reads a segment, the outer one what it has come to."""
    read = jax.lax.scan(inner, jnp.zeros_like(hidden), xs)[0]
    hidden = jnp.tanh(read @ V + hidden @ U)
    return hidden, jnp.sum(hidden**2, 1)


def scaled(hidden: Any, xs: Any) -> Any:
    """Each outer step makes the weights of its inner loop, which runs backward."""
    scale = 1 + jnp.mean(xs) / 2
    read, steps = jax.lax.scan(lambda h, x: inner(h, x, scale), hidden / 2, xs, reverse=True)
    return read, jnp.sum(steps**2, (0, 2))


MODELS = {"continuing": continuing, "anew": anew, "scaled": scaled}


def nested(step: Any) -> Any:
    def model(x: Any) -> Any:
        return jnp.sum(jax.lax.scan(step, jnp.zeros((x.shape[0], UNITS)), segments(x))[1], 0)[:, None]

    return model


def unrolled(name: str, x: Any, inner_zeros: Any, outer_zeros: Any) -> Any:
    """What `nested` computes, in Python, with a zero added to each state."""
    hidden, outputs = ZEROS, []
    for k, xs in enumerate(segments(x)):
        h = {"continuing": hidden, "anew": ZEROS, "scaled": hidden / 2}[name]
        scale = 1 + jnp.mean(xs) / 2 if name == "scaled" else 1.0
        for t in range(INNER)[:: -1 if name == "scaled" else 1]:
            h = inner(h, xs[t], scale)[0] + inner_zeros[k, t]
            outputs += [] if name == "anew" else [h]
        hidden = (jnp.tanh(h @ V + hidden @ U) if name == "anew" else h) + outer_zeros[k]
        outputs += [hidden] if name == "anew" else []
    return sum(jnp.sum(one**2, 1) for one in outputs)[:, None]


def leaves(model: Any, **options: Any) -> dict[str, Any]:
    """The outer and the inner loop by the number of their steps."""
    outer, *within = tt.capture(model, X, Y, loss=squared, **options).leaves
    return dict(zip(("outer", "inner"), (outer, *within), strict=True))


def by_outer_step(values: Any) -> np.ndarray:
    """(sample and outer step, …) to (outer step, …, sample, …) as the program has them."""
    found = np.asarray(values)
    return np.moveaxis(found.reshape(SAMPLES, OUTER, *found.shape[1:]), 0, 2)


@pytest.mark.parametrize("name", MODELS)
class TestALoopInTheBodyOfALoop:
    def test_gradients_are_those_of_the_loops_unrolled(self, name: str) -> None:
        found = leaves(nested(MODELS[name]))
        zeros = jnp.zeros((OUTER, INNER, SAMPLES, UNITS)), jnp.zeros((OUTER, SAMPLES, UNITS))

        def loss(x: Any, zeros: Any) -> Any:
            return jnp.sum(squared(unrolled(name, x, *zeros), Y))

        of_input, (of_inner, of_outer) = jax.grad(loss, (0, 1))(jnp.asarray(X), zeros)
        ours = by_outer_step(found["inner"]["hidden_gradient"])
        np.testing.assert_allclose(ours, of_inner, rtol=1e-12, atol=1e-13)
        outer = np.moveaxis(found["outer"]["hidden_gradient"].values, 0, 1)
        np.testing.assert_allclose(outer, of_outer, rtol=1e-12, atol=1e-13)
        if name != "scaled":  # whose weights depend on the input as well
            entering = by_outer_step(found["inner"]["input_gradient"])
            np.testing.assert_allclose(entering, segments(of_input), rtol=1e-12, atol=1e-13)

    def test_finite_differences_agree(self, name: str) -> None:
        ours = by_outer_step(leaves(nested(MODELS[name]))["inner"]["hidden_gradient"])
        outer, size = jnp.zeros((OUTER, SAMPLES, UNITS)), 1e-6
        for place in ((0, 1, 2, 3), (2, 0, 0, 1), (1, 1, 1, 0)):
            nudge = np.zeros((OUTER, INNER, SAMPLES, UNITS))
            nudge[place] = size
            up, down = (jnp.sum(squared(unrolled(name, X, one, outer), Y)) for one in (nudge, -nudge))
            assert abs(ours[place] - (up - down) / (2 * size)) <= 1e-7 * max(1, abs(ours).max())

    def test_both_have_certificates(self, name: str) -> None:
        for leaf in leaves(nested(MODELS[name])).values():
            assert float(leaf["certificate_weights"]) <= 1e-12
            assert float(leaf["certificate_time"]) <= 1e-12

    def test_samples_of_the_inner_loop_run_over_outer_steps(self, name: str) -> None:
        leaf = leaves(nested(MODELS[name]))["inner"]
        assert dict(leaf.sizes)["sample"] == SAMPLES * OUTER
        assert leaf.sizes["time"] == INNER
        np.testing.assert_array_equal(leaf["outer_step"], list(range(OUTER)) * SAMPLES)
        np.testing.assert_array_equal(leaf["outer_sample"], np.repeat(range(SAMPLES), OUTER))
        np.testing.assert_array_equal(by_outer_step(leaf["input"]), segments(jnp.asarray(X)))
        assert leaf["valid"].values.all()
        carried = leaf["carried_gradient"].values
        last = 0 if name == "scaled" else -1
        assert not carried[:, last].any()
        assert np.delete(carried, last, 1).all()
        assert tt.diagnostics.memory_horizon(leaf).max() < INNER

    def test_the_jacobian_is_that_of_a_step(self, name: str) -> None:
        leaf = leaves(nested(MODELS[name]), quantities=["all", "state_jacobian"])["inner"]
        hidden = by_outer_step(leaf["hidden"])
        scale = np.ones(OUTER) if name != "scaled" else 1 + np.mean(segments(X), (1, 2, 3)) / 2
        wanted = (1 - hidden**2)[..., None] * (U.T * scale[:, None, None])[:, None, None]
        np.testing.assert_allclose(by_outer_step(leaf["state_jacobian"]), wanted, rtol=1e-12, atol=1e-14)


def test_segments_of_one_loop_have_its_states_and_gradients() -> None:
    leaf = leaves(nested(continuing))["inner"]
    (flat,) = tt.capture(bare, X, Y, loss=squared).leaves
    for name in ("input", "input_gradient", "hidden", "hidden_gradient", "output_gradient", "gate_gradient"):
        joined = leaf[name].values.reshape(flat[name].shape)
        if name == "output_gradient":  # a state goes on as the last one of its segment
            joined = joined[:, 0::INNER]
            np.testing.assert_allclose(joined, flat[name].values[:, 0::INNER], rtol=1e-12, err_msg=name)
        else:
            np.testing.assert_allclose(joined, flat[name].values, rtol=1e-12, atol=1e-14, err_msg=name)


def test_a_map_over_segments_shows_the_loop_that_it_runs() -> None:
    def model(x: Any) -> Any:
        read = jax.lax.map(lambda xs: jax.lax.scan(inner, jnp.zeros((x.shape[0], UNITS)), xs)[0], segments(x))
        return jnp.sum(read**2, (0, 2))[:, None]

    (leaf,) = tt.capture(model, X, Y, loss=squared).leaves
    assert leaf.sizes["sample"] == SAMPLES * OUTER
    last = by_outer_step(leaf["hidden"])[:, -1]
    wanted = 2 * (jnp.sum(last**2, (0, 2))[:, None] - Y) * 2 * last
    np.testing.assert_allclose(by_outer_step(leaf["hidden_gradient"])[:, -1], wanted, rtol=1e-12)
    assert float(leaf["certificate_time"]) <= 1e-12


class Sentences(nnx.Module):
    """An LSTM reads each segment, a GRU what the LSTM has read."""

    def __init__(self) -> None:
        self.words = nnx.LSTMCell(FEATURES, UNITS, rngs=nnx.Rngs(0), **DOUBLE)
        self.sentence = nnx.GRUCell(UNITS, UNITS, rngs=nnx.Rngs(1), **DOUBLE)
        self.head = nnx.Linear(UNITS, 1, rngs=nnx.Rngs(2), **DOUBLE)

    def step(self, hidden: Any, xs: Any) -> Any:
        start = jnp.zeros_like(hidden), jnp.zeros_like(hidden)
        read, _ = jax.lax.scan(self.words, start, jnp.swapaxes(xs, 0, 1))
        return self.sentence(hidden, read[1])

    def __call__(self, x: Any) -> Any:
        parts = jnp.moveaxis(x.reshape(x.shape[0], OUTER, INNER, FEATURES), 1, 0)
        hidden = jnp.zeros((x.shape[0], UNITS))
        return self.head(jax.lax.scan(self.step, hidden, parts)[0])


class Unrolled(Sentences):
    def __call__(self, x: Any) -> Any:
        hidden = jnp.zeros((x.shape[0], UNITS))
        for k in range(OUTER):
            hidden, _ = self.step(hidden, x[:, k * INNER : (k + 1) * INNER])
        return self.head(hidden)


def test_known_cells_have_their_names_gates_and_weights() -> None:
    tree = tt.capture(Sentences(), X, Y, loss=squared)
    words = tree["words"]
    assert words.attrs["kind"] == "lstm"
    each = list(tt.capture(Unrolled(), X, Y, loss=squared).leaves)
    assert len(each) == OUTER
    for name in ("hidden", "cell_gradient", "gate_activation", "gate_gradient", "step_contribution"):
        ours = np.moveaxis(words[name].values.reshape(SAMPLES, OUTER, *words[name].shape[1:]), 1, 0)
        for one, leaf in zip(ours, each, strict=True):
            np.testing.assert_allclose(one, leaf[name].values, rtol=1e-11, atol=1e-14, err_msg=name)
    for name in ("kernel_gradient", "recurrent_kernel_gradient"):
        np.testing.assert_allclose(words[name], each[0][name], rtol=1e-11, atol=1e-14, err_msg=name)
    for leaf in tree.leaves:
        assert float(leaf["certificate_weights"]) <= 1e-12
        assert float(leaf["certificate_time"]) <= 1e-12
    tt.diagnose(tree)
    for plot in (tt.plots.heatmap, tt.plots.lag_profile, tt.plots.gates, tt.plots.gradient_flow):
        assert plot(words) is not None


def test_one_layer_alone_may_be_captured() -> None:
    everything = tt.capture(Sentences(), X, Y, loss=squared)["words"]
    alone = tt.capture(Sentences(), X, Y, loss=squared, layers="words")
    assert [leaf.path for leaf in alone.leaves] == ["/words"]
    np.testing.assert_allclose(alone["words"]["gate_gradient"], everything["gate_gradient"], rtol=1e-12)


def deep(x: Any, scan: Any = jax.lax.scan, tap: Any = lambda _, hidden: hidden) -> Any:
    """Three loops in each other; the lowest has weights that each of them makes, and one of the model."""

    def highest(hidden: Any, xs: Any) -> Any:
        of_segment = U * (1 + jnp.mean(xs) / 2)

        def middle(hidden: Any, x: Any) -> Any:
            of_word = V * jnp.mean(x)

            def lowest(hidden: Any, one: Any) -> Any:
                entering = one[:, None] * W[0] + hidden @ U + hidden @ of_segment + hidden @ of_word
                hidden = tap("lowest", jnp.tanh(entering))
                return hidden, jnp.sum(hidden**2, 1)

            hidden, lost = scan(lowest, hidden / 2, jnp.moveaxis(x, -1, 0), reverse=True)
            return tap("middle", jnp.tanh(hidden @ V)), jnp.sum(lost, 0)

        hidden, lost = scan(middle, hidden, xs)
        return tap("highest", jnp.tanh(hidden @ U)), jnp.sum(lost, 0)

    return jnp.sum(scan(highest, jnp.zeros((x.shape[0], UNITS)), segments(x))[1], 0)[:, None]


SIZES = {"highest": (OUTER,), "middle": (OUTER, INNER), "lowest": (OUTER, INNER, FEATURES)}
NOTHING = {name: jnp.zeros((*sizes, SAMPLES, UNITS)) for name, sizes in SIZES.items()}


def loss_of_deep(added: Any) -> Any:
    """The loss of the same loops in Python, with something added to each state."""
    waiting = {name: iter(each.reshape(-1, SAMPLES, UNITS)) for name, each in added.items()}

    def in_python(step: Any, hidden: Any, xs: Any, *, reverse: bool = False) -> Any:
        lost = []
        for x in xs[::-1] if reverse else xs:
            hidden, one = step(hidden, x)
            lost.append(one)
        return hidden, jnp.stack(lost)

    output = deep(jnp.asarray(X), in_python, lambda name, hidden: hidden + next(waiting[name]))
    return jnp.sum(squared(output, Y))


def of_deep() -> dict[str, Any]:
    return dict(zip(SIZES, tt.capture(deep, X, Y, loss=squared).leaves, strict=True))


def as_in_python(name: str, values: Any) -> np.ndarray:
    """(sample and outer steps, time, unit) to (steps of each loop as they run, sample, unit)."""
    found = np.moveaxis(np.asarray(values).reshape(SAMPLES, *SIZES[name], UNITS), 0, -2)
    return found[:, :, ::-1] if name == "lowest" else found


def test_three_loops_in_each_other_have_the_gradients_of_the_loops_unrolled() -> None:
    wanted = jax.grad(loss_of_deep)(NOTHING)
    for name, leaf in of_deep().items():
        ours = as_in_python(name, leaf["hidden_gradient"])
        np.testing.assert_allclose(ours, wanted[name], rtol=1e-11, atol=1e-13, err_msg=name)


def test_three_loops_in_each_other_have_the_gradients_of_finite_differences() -> None:
    size = 1e-6
    for name, leaf in of_deep().items():
        ours = as_in_python(name, leaf["hidden_gradient"])
        for place in np.random.default_rng(0).integers(ours.shape, size=(3, ours.ndim)):
            nudged = [{**NOTHING, name: NOTHING[name].at[tuple(place)].set(by)} for by in (size, -size)]
            up, down = map(loss_of_deep, nudged)
            assert abs(ours[tuple(place)] - (up - down) / (2 * size)) <= 1e-7 * max(1, abs(ours).max())


def test_three_loops_in_each_other_have_certificates_and_outer_steps() -> None:
    for name, leaf in of_deep().items():
        assert float(leaf["certificate_weights"]) <= 1e-12
        assert float(leaf["certificate_time"]) <= 1e-12
        *outer, steps = SIZES[name]
        assert leaf.sizes["time"] == steps
        if outer:
            each = int(np.prod(outer))
            np.testing.assert_array_equal(leaf["outer_step"], list(range(each)) * SAMPLES)
            np.testing.assert_array_equal(leaf["outer_sample"], np.repeat(range(SAMPLES), each))


class Padded(nnx.Module):
    """Each segment has one or two steps, another number in each sample."""

    def __init__(self, *, reverse: bool) -> None:
        cell = nnx.GRUCell(FEATURES, UNITS, rngs=nnx.Rngs(0), **DOUBLE)
        self.words = nnx.RNN(cell, reverse=reverse, keep_order=reverse)

    def step(self, hidden: Any, xs: Any) -> Any:
        words = nnx.merge(*nnx.split(self.words), copy=True)
        lengths = 1 + (xs[0, :, 0] > 0)
        of_words = {"initial_carry": hidden, "seq_lengths": lengths, "rngs": nnx.Rngs(0)}
        read = words(jnp.swapaxes(xs, 0, 1), **of_words)
        counts = jnp.arange(INNER) < lengths[:, None]
        return jnp.tanh(read.sum(1)), jnp.sum(counts[..., None] * read**2, (1, 2))

    def __call__(self, x: Any) -> Any:
        return nested(self.step)(x)


class PaddedUnrolled(Padded):
    def __call__(self, x: Any) -> Any:
        hidden, lost = jnp.zeros((x.shape[0], UNITS)), []
        for xs in segments(x):
            hidden, one = self.step(hidden, xs)
            lost.append(one)
        return sum(lost)[:, None]


@pytest.mark.parametrize("reverse", [False, True])
def test_an_inner_loop_knows_the_lengths_of_its_samples(reverse: bool) -> None:
    outer, words = tt.capture(Padded(reverse=reverse), X, Y, loss=squared).leaves
    each = list(tt.capture(PaddedUnrolled(reverse=reverse), X, Y, loss=squared).leaves)
    assert len(each) == OUTER
    assert words["outer_step"].size == SAMPLES * OUTER
    assert not words["valid"].values.all()
    assert words.attrs["go_backwards"] == int(reverse)
    for name in ("valid", "input", "hidden", "hidden_gradient", "gate_activation", "gate_gradient"):
        ours = np.moveaxis(words[name].values.reshape(SAMPLES, OUTER, *words[name].shape[1:]), 1, 0)
        for one, leaf in zip(ours, each, strict=True):
            np.testing.assert_allclose(one, leaf[name].values, rtol=1e-11, atol=1e-14, err_msg=name)
    for leaf in (outer, words):
        assert float(leaf["certificate_weights"]) <= 1e-12
        assert float(leaf["certificate_time"]) <= 1e-12


def test_a_cell_may_read_what_its_step_makes_of_the_input() -> None:
    class Encoding(nnx.Module):
        def __init__(self) -> None:
            self.enter = nnx.Linear(FEATURES, 5, rngs=nnx.Rngs(3), **DOUBLE)
            self.cell = nnx.GRUCell(5, UNITS, rngs=nnx.Rngs(1), **DOUBLE)

        def __call__(self, x: Any) -> Any:
            xs = jnp.swapaxes(x, 0, 1)
            last, _ = jax.lax.scan(lambda h, x: self.cell(h, self.enter(x)), jnp.zeros((len(x), UNITS)), xs)
            return jnp.sum(last**2, 1)[:, None]

    (leaf,) = tt.capture(Encoding(), X, Y, loss=squared).leaves
    assert leaf["kernel"].sizes["feature"] == 5
    np.testing.assert_array_equal(leaf["input"], X)
    assert float(leaf["certificate_weights"]) <= 1e-12


def test_layers_with_their_weights_in_one_array_have_one_leaf_and_gradients_of_that_array() -> None:
    class Stack(nnx.Module):
        def __init__(self) -> None:
            make = nnx.vmap(lambda key: rnn_of(nnx.Rngs(key)), in_axes=0, out_axes=0)
            self.layers = make(jax.random.split(jax.random.key(0), LAYERS))

        def __call__(self, x: Any) -> Any:
            run = nnx.scan(lambda x, layer: layer(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
            return run(x, self.layers)[:, -1].sum(1, keepdims=True)

    def rnn_of(rngs: Any) -> Any:
        return nnx.RNN(nnx.SimpleCell(FEATURES, FEATURES, rngs=rngs, **DOUBLE), rngs=rngs)

    def loss(arrays: Any, zeros: Any) -> Any:
        x = jnp.asarray(X)
        for layer in range(LAYERS):
            kernel, recurrent, bias = (array[layer] for array in arrays)
            hidden, steps = jnp.zeros((SAMPLES, FEATURES)), []
            for t in range(STEPS):
                hidden = jnp.tanh(x[:, t] @ kernel + bias + hidden @ recurrent) + zeros[layer, t]
                steps.append(hidden)
            x = jnp.stack(steps, 1)
        return jnp.mean((x[:, -1].sum(1, keepdims=True) - Y) ** 2)

    model = Stack()
    leaf = tt.capture(model, X, Y, loss=squared)["layers"]
    cell = model.layers.cell
    arrays = cell.dense_i.kernel[...], cell.dense_h.kernel[...], cell.dense_i.bias[...]
    zeros = jnp.zeros((LAYERS, STEPS, SAMPLES, FEATURES))
    of_arrays, of_states = jax.grad(loss, argnums=(0, 1))(arrays, zeros)
    names = "dense_i_kernel_gradient", "dense_h_kernel_gradient", "dense_i_bias_gradient"
    for name, wanted in zip(names, of_arrays, strict=True):
        np.testing.assert_allclose(leaf[name], wanted, rtol=1e-10, atol=1e-13)
    by_sample = np.transpose(of_states, (2, 0, 1, 3)).reshape(SAMPLES * LAYERS, STEPS, FEATURES)
    np.testing.assert_allclose(leaf["hidden_gradient"], SAMPLES * by_sample, rtol=1e-10, atol=1e-13)
    with pytest.raises(tt.LayerNotFoundError, match="found when it runs"):
        tt.weights(model)
