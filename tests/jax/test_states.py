"""States and their total derivatives, against a loop unrolled in Python with zeros of its own."""

from __future__ import annotations

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tests.jax.programs import (
    FEATURES,
    SAMPLES,
    STEPS,
    UNITS,
    Folded,
    Reader,
    U,
    W,
    X,
    Y,
    bare,
    rnn,
    squared,
    unrolled,
)

import throughtime as tt

ZEROS = jnp.zeros((SAMPLES, UNITS))


def only(tree: Any) -> Any:
    (leaf,) = tree.leaves
    return leaf


def certified(leaf: Any, bar: float = 1e-12) -> None:
    assert float(leaf["certificate_weights"]) <= bar
    assert "input" not in leaf or float(leaf["certificate_time"]) <= bar


def close(found: Any, wanted: Any, bar: float = 1e-12) -> None:
    wanted = np.asarray(wanted)
    assert wanted.any()
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=0, atol=bar * np.abs(wanted).max())


def tanh_step(states: Any, x: Any, zeros: Any) -> Any:
    hidden = jnp.tanh(x @ W + states["hidden"] @ U) + zeros["hidden"]
    return {"hidden": hidden}, hidden


def of_all_steps(outputs: Any, _: Any) -> Any:
    # A sample's own loss: what a capture shows with the mean over the batch undone.
    return jnp.sum((jnp.sum(jnp.stack(outputs) ** 2, (0, 2))[:, None] - Y) ** 2)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("around", [lambda f: f, jax.jit, jax.checkpoint], ids=str)
def test_a_bare_scan_shows_its_states_and_total_derivatives(around: Any, reverse: bool) -> None:
    leaf = only(tt.capture(around(partial(bare, reverse=reverse)), X, Y, loss=squared))
    order = reversed(range(STEPS)) if reverse else range(STEPS)
    wanted = unrolled(tanh_step, {"hidden": ZEROS}, of_all_steps, list(order))
    close(leaf["hidden_gradient"], wanted["hidden"])
    close(leaf["input_gradient"], wanted["input"])
    np.testing.assert_array_equal(leaf["input"], X)
    certified(leaf)


def test_a_loop_that_jax_turns_into_a_scan_is_shown() -> None:
    def fold(x: Any) -> Any:
        def body(t: Any, hidden: Any) -> Any:
            return jnp.sin(jax.lax.dynamic_index_in_dim(x, t, 1, keepdims=False) @ W + hidden @ U)

        return jax.lax.fori_loop(0, STEPS, body, jnp.zeros((x.shape[0], UNITS))).sum(1, keepdims=True)

    def step(states: Any, x: Any, zeros: Any) -> Any:
        return {"hidden": jnp.sin(x @ W + states["hidden"] @ U) + zeros["hidden"]}, None

    leaf = only(tt.capture(fold, X, Y, loss=squared))
    wanted = unrolled(
        step, {"hidden": ZEROS}, lambda _, last: jnp.sum((last["hidden"].sum(1, keepdims=True) - Y) ** 2)
    )
    close(leaf["hidden_gradient"], wanted["hidden"])
    close(leaf["output_gradient"][:, -1], wanted["hidden"][:, -1])
    assert not leaf["output_gradient"][:, :-1].any()
    assert "enters this loop step by step" in leaf.attrs["missing_input"]
    certified(leaf)


def test_every_state_of_a_dict_is_shown_by_its_name_and_counters_are_not() -> None:
    def fold(x: Any) -> Any:
        @jax.checkpoint
        def step(carry: Any, now: Any) -> Any:
            spike = jax.nn.sigmoid(now @ W + carry["spike"] @ U - carry["trace"])
            trace = 0.9 * carry["trace"] + 0.1 * spike
            after = {"spike": spike, "trace": trace, "count": carry["count"] + 1, "fixed": carry["fixed"]}
            return after, spike * carry["fixed"]

        zeros = jnp.zeros((x.shape[0], UNITS))
        start = {"spike": zeros, "trace": zeros, "count": 0, "fixed": jnp.ones(UNITS)}
        return jnp.sum(jax.lax.scan(step, start, jnp.swapaxes(x, 0, 1))[1] ** 2, (0, 2))[:, None]

    def step(states: Any, x: Any, zeros: Any) -> Any:
        spike = jax.nn.sigmoid(x @ W + states["spike"] @ U - states["trace"]) + zeros["spike"]
        trace = 0.9 * states["trace"] + 0.1 * spike + zeros["trace"]
        return {"spike": spike, "trace": trace}, spike

    leaf = only(tt.capture(fold, X, Y, loss=squared))
    wanted = unrolled(step, {"spike": ZEROS, "trace": ZEROS}, of_all_steps)
    for name in ("spike", "trace"):
        close(leaf[f"{name}_gradient"], wanted[name])
    assert leaf.attrs["states"] == "spike, trace"
    certified(leaf)


def test_a_carry_that_holds_the_last_input_counts() -> None:
    def fold(x: Any) -> Any:
        def step(carry: Any, now: Any) -> Any:
            hidden = jnp.tanh(now @ W + carry[0] @ U + carry[1] @ W)
            return (hidden, now), hidden

        start = jnp.zeros((x.shape[0], UNITS)), jnp.zeros((x.shape[0], X.shape[2]))
        return jnp.sum(jax.lax.scan(step, start, jnp.swapaxes(x, 0, 1))[1] ** 2, (0, 2))[:, None]

    certified(only(tt.capture(fold, X, Y, loss=squared)))


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (lambda x: bare(jnp.swapaxes(x, 0, 1)), np.swapaxes(X, 0, 1)),
        (lambda x: bare(x[None])[0], X[1]),
    ],
    ids=["time first", "one series"],
)
def test_the_axis_of_samples_is_found(model: Any, x: Any) -> None:
    y = Y if x.ndim == 3 else Y[1]
    leaf = only(tt.capture(model, x, y, loss=squared))
    wanted = only(tt.capture(bare, X, Y, loss=squared))
    chosen = wanted if x.ndim == 3 else wanted.isel(sample=slice(1, 2))
    close(leaf["hidden_gradient"], chosen["hidden_gradient"])
    close(leaf["hidden"], chosen["hidden"])


@pytest.mark.parametrize("steps", ["scan", "indices"])
@pytest.mark.parametrize("batch", ["fixed", "any"])
@pytest.mark.parametrize("time_first", [False, True], ids=["samples first", "time first"])
def test_a_program_that_fixes_its_batch_or_steps_shows_samples(
    time_first: bool, batch: str, steps: str
) -> None:
    def fold(x: Any) -> Any:
        def step(hidden: Any, now: Any) -> Any:
            return jnp.tanh(now @ W + hidden @ U), None

        start = jnp.zeros((SAMPLES if batch == "fixed" else x.shape[int(time_first)], UNITS))
        x = x if time_first else jnp.swapaxes(x, 0, 1)
        if steps == "scan":
            return jax.lax.scan(step, start, x)[0].sum(1, keepdims=True)
        return jax.lax.fori_loop(0, STEPS, lambda t, h: step(h, x[t])[0], start).sum(1, keepdims=True)

    leaf = only(tt.capture(fold, np.swapaxes(X, 0, 1) if time_first else X, Y, loss=squared))
    wanted = unrolled(
        tanh_step, {"hidden": ZEROS}, lambda _, last: jnp.sum((last["hidden"].sum(1, keepdims=True) - Y) ** 2)
    )
    close(leaf["hidden_gradient"], wanted["hidden"])
    certified(leaf)


def fast_weights(x: Any) -> Any:
    """One series (time, feature); the state is a matrix (feature, feature)."""

    def step(state: Any, now: Any) -> Any:
        after = 0.9 * state + jnp.outer(now, now)
        return after, jnp.tanh(after @ now).sum()

    return jax.lax.scan(step, jnp.zeros((X.shape[2], X.shape[2])), x)[1].sum(keepdims=True)


def as_many_steps_as_features(x: Any) -> Any:
    """One series, as long as wide; the state is a vector."""

    def step(hidden: Any, now: Any) -> Any:
        after = jnp.tanh(now @ W + hidden @ U)
        return after, after

    return jax.lax.scan(step, jnp.zeros(UNITS), x[:, : W.shape[0]])[1]


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (fast_weights, X[0]),
        (as_many_steps_as_features, np.resize(X[0], (UNITS, UNITS))),
        (lambda x: bare(x[None] * jnp.ones(W.shape[0]))[0], X[0][:, :1]),
    ],
    ids=["matrix", "square", "one feature"],
)
def test_features_of_one_series_are_no_samples(model: Any, x: Any) -> None:
    leaf = only(tt.capture(model, x, loss=lambda output: (output**2).sum()))
    assert leaf.sizes["sample"] == 1
    assert leaf.sizes["time"] == len(x)


CELLS = [nnx.LSTMCell, nnx.OptimizedLSTMCell, nnx.GRUCell, nnx.SimpleCell]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.__name__)
def test_nnx_cells_have_gates_and_a_certificate(cell: Any) -> None:
    tree = tt.capture(Reader(rnn(cell)), X, Y, loss=squared)
    leaf = tree["layers/0"]
    kind = {"L": "lstm", "O": "lstm", "G": "gru", "S": "simple_rnn"}[cell.__name__[0]]
    assert leaf.attrs["kind"] == kind
    certified(leaf)
    assert tt.diagnostics.saturation(leaf) is not None if kind != "simple_rnn" else True


@pytest.mark.parametrize("cell", [eqx.nn.LSTMCell, eqx.nn.GRUCell], ids=lambda cell: cell.__name__)
def test_equinox_cells_are_the_same_alone_and_in_a_function(cell: Any) -> None:
    model = Folded(cell)
    alone = only(tt.capture(model, X, Y, loss=squared))
    mapped = only(tt.capture(jax.vmap(model), X, Y, loss=squared))
    assert alone.path == "/cell"
    assert alone.attrs["kind"] == mapped.attrs["kind"] == cell.__name__[:-4].lower()
    for name in ("hidden_gradient", "gate_activation", "gate_gradient", "input_gradient"):
        np.testing.assert_array_equal(alone[name], mapped[name])
    assert "kernel" in alone
    assert "Partial" in mapped.attrs["missing_weights"]
    certified(alone)


def test_a_bidirectional_layer_is_one_leaf_in_input_time() -> None:
    forward, backward = rnn(nnx.GRUCell), rnn(nnx.GRUCell, seed=3)
    model = Reader(nnx.Bidirectional(forward, backward, rngs=nnx.Rngs(0)), width=2 * UNITS)
    leaf = only(tt.capture(model, X, Y, loss=squared))
    assert leaf.path == "/layers/0"
    assert leaf.attrs["merge_mode"] == "concat"
    np.testing.assert_array_equal(leaf["input"], X)
    halves = forward(X), backward(X, reverse=True, keep_order=True)
    for direction, half in zip(("forward", "backward"), halves, strict=True):
        np.testing.assert_allclose(leaf["hidden"].sel(direction=direction), half, rtol=1e-12)
    np.testing.assert_array_equal(
        leaf["output"], np.concatenate([leaf["hidden"][:, :, k] for k in (0, 1)], -1)
    )
    # The head reads the last step, which the backward half makes first: no gradient comes from before it.
    assert not leaf["hidden_gradient"].sel(direction="backward")[:, :-1].any()
    graph, state = nnx.split(model)
    wanted = jax.grad(lambda x: jnp.sum(squared(nnx.merge(graph, state, copy=True)(x), Y)))(jnp.asarray(X))
    close(leaf["input_gradient"], wanted)
    assert float(leaf["certificate_weights"].max()) <= 1e-12


def test_stacked_layers_are_leaves_and_can_be_chosen_by_name() -> None:
    model = Reader(rnn(nnx.LSTMCell), rnn(nnx.GRUCell, UNITS))
    tree = tt.capture(model, X, Y, loss=squared)
    assert [leaf.path for leaf in tree.leaves] == ["/layers/0", "/layers/1"]
    one = tt.capture(model, X, Y, loss=squared, layers="layers/1")
    assert [leaf.path for leaf in one.leaves] == ["/layers/1"]
    with pytest.raises(tt.LayerNotFoundError, match="layers/0"):
        tt.capture(model, X, Y, loss=squared, layers="attention")


def test_single_precision_passes_its_certificate() -> None:
    single = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, Folded(eqx.nn.GRUCell)
    )
    with jax.enable_x64(False):
        leaf = only(tt.capture(single, X.astype("f4"), Y.astype("f4"), loss=squared))
    certified(leaf, 1e-5)
    assert leaf["hidden"].dtype == np.float32


def test_gradients_agree_with_finite_differences() -> None:
    leaf = only(tt.capture(bare, X, Y, loss=squared))
    small = 1e-6 * np.eye(X.size).reshape(-1, *X.shape)
    losses = jax.jit(jax.vmap(lambda x: jnp.sum(squared(bare(x), Y))))
    wanted = (losses(X + small) - losses(X - small)).reshape(X.shape) / 2e-6
    close(leaf["input_gradient"], wanted, 1e-7)


def test_a_long_series_is_not_unrolled() -> None:
    x = np.random.default_rng(0).normal(size=(2, 10_000, X.shape[2]))
    leaf = only(tt.capture(bare, x, Y[:2], loss=squared))
    assert leaf.sizes["time"] == 10_000
    certified(leaf)


def test_names_of_states_and_weights_do_not_meet() -> None:
    def fold(weights: Any, x: Any) -> Any:
        def step(carry: Any, now: Any) -> Any:
            trace = 0.9 * carry["trace"] + 0.1 * jnp.sin(now @ weights["loop"]["trace"] + carry["output"])
            return {"trace": trace, "output": jnp.cos(trace)}, None

        zeros = jnp.zeros((x.shape[0], UNITS))
        last, _ = jax.lax.scan(step, {"trace": zeros, "output": zeros}, jnp.swapaxes(x, 0, 1))
        return last["output"].sum(1, keepdims=True)

    model = jax.tree_util.Partial(fold, {"loop": {"trace": W, "other": U}})
    leaf = only(tt.capture(model, X, Y, loss=squared))
    assert leaf.path == "/loop"
    assert leaf["trace"].dims == ("sample", "time", "unit")
    np.testing.assert_array_equal(leaf["trace_parameter"], W)
    assert "other" not in leaf
    certified(leaf)


def test_programs_around_a_loop_keep_their_rules() -> None:
    @jax.custom_jvp
    def spike(value: Any) -> Any:
        return (value > 0).astype(value.dtype)

    @spike.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        return spike(*primals), tangents[0] / (1 + jnp.abs(primals[0])) ** 2

    def fold(x: Any) -> Any:
        def step(charge: Any, now: Any) -> Any:
            fired = spike(charge - 1)
            charge = 0.9 * charge * (1 - fired) + now @ W
            return charge, fired

        return jax.lax.scan(step, jnp.zeros((x.shape[0], UNITS)), jnp.swapaxes(x, 0, 1))[1].sum((0, 2))[
            :, None
        ]

    def step(states: Any, x: Any, zeros: Any) -> Any:
        fired = spike(states["hidden"] - 1)
        return {"hidden": 0.9 * states["hidden"] * (1 - fired) + x @ W + zeros["hidden"]}, fired

    leaf = only(tt.capture(fold, X, Y, loss=squared))

    def finish(outputs, _):
        return jnp.sum((jnp.stack(outputs).sum((0, 2))[:, None] - Y) ** 2)

    close(leaf["hidden_gradient"], unrolled(step, {"hidden": ZEROS}, finish)["hidden"])
    certified(leaf)


def test_cells_of_one_scan_compute_with_numbers() -> None:
    mixing = jnp.asarray(0.5 * np.random.default_rng(2).normal(size=(UNITS, UNITS)))

    def fold(x: Any) -> Any:
        def step(carry: Any, now: Any) -> Any:
            low = jnp.tanh(now @ W + carry[0] @ U)
            high = jnp.tanh(0.5 * (low @ mixing) + carry[1] @ U + 0.1)
            return (low, high), high

        zeros = jnp.zeros((x.shape[0], UNITS))
        return jnp.sum(jax.lax.scan(step, (zeros, zeros), jnp.swapaxes(x, 0, 1))[1] ** 2, (0, 2))[:, None]

    def step(states: Any, x: Any, zeros: Any) -> Any:
        low = jnp.tanh(x @ W + states["low"] @ U) + zeros["low"]
        high = jnp.tanh(0.5 * (low @ mixing) + states["high"] @ U + 0.1) + zeros["high"]
        return {"low": low, "high": high}, high

    leaves = tt.capture(fold, X, Y, loss=squared).leaves
    wanted = unrolled(step, {"low": ZEROS, "high": ZEROS}, of_all_steps)
    for leaf, name in zip(leaves, ("low", "high"), strict=True):
        close(leaf["hidden_gradient"], wanted[name])
        certified(leaf)


def test_a_complex_state_is_shown_by_its_real_and_imaginary_part() -> None:
    rng = np.random.default_rng(3)
    turn = jnp.exp(jnp.asarray(-0.3 + 1j * rng.normal(size=UNITS)))
    enters = jnp.asarray(rng.normal(size=(FEATURES, UNITS)) + 1j * rng.normal(size=(FEATURES, UNITS)))

    def fold(x: Any) -> Any:
        def step(state: Any, now: Any) -> Any:
            state = turn * state + now @ enters
            return state, state

        start = jnp.zeros((x.shape[0], UNITS), turn.dtype)
        modes = tt.mark(jax.lax.scan(step, start, jnp.swapaxes(x, 0, 1))[1], "modes")
        return jnp.real(modes**2).sum((0, 2))[:, None]

    def of_zeros(zeros: Any) -> Any:
        state, states = jnp.zeros((SAMPLES, UNITS), turn.dtype), []
        for t in range(STEPS):
            state = turn * state + X[:, t] @ enters + zeros[:, t, :, 0] + 1j * zeros[:, t, :, 1]
            states.append(state)
        found = jnp.stack(states, 1)
        return jnp.sum(squared(jnp.real(found**2).sum((1, 2))[:, None], Y)), found

    wanted, states = jax.grad(of_zeros, has_aux=True)(jnp.zeros((SAMPLES, STEPS, UNITS, 2)))
    tree = tt.capture(fold, X, Y, loss=squared)
    leaf, marked = next(one for one in tree.leaves if "hidden" in one), tree["modes"]
    for found in (leaf["hidden"], marked["output"]):
        close(found, jnp.stack([states.real, states.imag], -1))
    close(leaf["hidden_gradient"], wanted)
    close(marked["output_gradient"], leaf["output_gradient"])
    back = jnp.abs((wanted[..., 0] - 1j * wanted[..., 1]) * turn)  # of the later step, through its product
    close(leaf["carried_gradient"][:, :-1], jnp.sqrt(jnp.sum(back**2, -1))[:, 1:])
    certified(leaf)
    leaf = tt.capture(fold, X, Y, loss=squared, quantities=["all", "state_jacobian"])[leaf.path]
    assert "carry real and imaginary part as two states" in leaf.attrs["missing_state_jacobian"]


def test_complex_parameters_have_their_gradients_by_real_and_imaginary_part() -> None:
    rng = np.random.default_rng(4)
    parts = {"turn": 0.5 * rng.normal(size=(UNITS, 2)), "enters": rng.normal(size=(FEATURES, UNITS, 2))}

    def fold(parameters: Any, x: Any) -> Any:
        def step(state: Any, now: Any) -> Any:
            state = parameters["turn"] * state + now @ parameters["enters"]
            return state, state

        start = jnp.zeros((x.shape[0], UNITS), jnp.complex128)
        return jnp.real(jax.lax.scan(step, start, jnp.swapaxes(x, 0, 1))[1] ** 2).sum((0, 2))[:, None]

    def joined(parts: Any) -> Any:
        return {name: jnp.asarray(each[..., 0] + 1j * each[..., 1]) for name, each in parts.items()}

    leaf = only(tt.capture(jax.tree_util.Partial(fold, joined(parts)), X, Y, loss=squared))
    wanted = jax.grad(lambda parts: squared(fold(joined(parts), X), Y).mean())(parts)
    for name, each in parts.items():
        np.testing.assert_array_equal(leaf[name], each)
        close(leaf[f"{name}_gradient"], wanted[name])
    certified(leaf)


def test_members_of_an_ensemble_have_a_separate_axis() -> None:
    kernels = jnp.stack([W, 2 * W])

    def members(x: Any) -> Any:
        return jax.vmap(lambda kernel: bare(x @ kernel @ jnp.linalg.pinv(W)))(kernels)[..., 0].mean(0)[
            :, None
        ]

    def step(states: Any, x: Any, zeros: Any) -> Any:
        hidden = jnp.tanh(
            jnp.einsum("bf,mfu->bmu", x, kernels @ jnp.linalg.pinv(W) @ W) + states["hidden"] @ U
        )
        return {"hidden": hidden + zeros["hidden"]}, hidden + zeros["hidden"]

    def finish(outputs: Any, _: Any) -> Any:
        return jnp.sum((jnp.sum(jnp.stack(outputs) ** 2, (0, 3)).mean(1)[:, None] - Y) ** 2)

    leaf = only(tt.capture(members, X, Y, loss=squared))
    wanted = unrolled(step, {"hidden": jnp.zeros((SAMPLES, 2, UNITS))}, finish)
    close(leaf["hidden_gradient"], wanted["hidden"])
    certified(leaf)
