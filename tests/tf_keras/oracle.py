"""Recurrent layers unrolled by hand, with a zero added wherever a gradient is wanted.

Shares no code with the library. `gradients` puts the unrolled layers into a model for one call and
differentiates by `tf.GradientTape` in eager mode, by `tf.gradients` in a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf
from tests.tf_keras.legacy import session
from tests.tf_keras.rows import Case

PARTS = {"lstm": 4, "gru": 3, "simple_rnn": 1}


class Leaf:
    """What is found at one layer: taps by name, a list of one for each direction.

    `watch` has a tape follow each of them.
    """

    def __init__(self, watch: Callable[[Any], None]) -> None:
        self.taps: dict[str, list[Any]] = {}
        self.weights: list[Any] = []
        self.watch = watch

    def zero(self, value: Any) -> Any:
        tap = tf.zeros_like(value)
        self.watch(tap)
        return tap

    def tapped(self, name: str, value: Any) -> Any:
        tap = self.zero(value)
        self.taps.setdefault(name, []).append(tap)
        return value + tap


def kind_of(cell: Any) -> str:
    names = {"LSTMCell": "lstm", "GRUCell": "gru", "SimpleRNNCell": "simple_rnn"}
    return next((names[cls.__name__] for cls in type(cell).__mro__[:2] if cls.__name__ in names), "")


def step_of(cell: Any) -> Callable[..., Any]:
    """The equations of one step: (x, states, note) -> states; `note(name, value)` adds a tap."""
    kind = kind_of(cell)
    if not kind:
        return lambda x, states, note: _of_any(cell, x, states, note)
    width = cell.units
    bias = cell.bias if cell.use_bias else tf.zeros(width * PARTS[kind], cell.kernel.dtype)

    def lstm(x: Any, states: Any, note: Any) -> Any:
        z = note(
            "gate", tf.reshape(x @ cell.kernel + states[0] @ cell.recurrent_kernel + bias, (-1, 4, width))
        )
        i, f, o = (cell.recurrent_activation(z[:, k]) for k in (0, 1, 3))
        c = note("cell", f * states[1] + i * cell.activation(z[:, 2]))
        return [note("hidden", o * cell.activation(c)), c]

    def gru(x: Any, states: Any, note: Any) -> Any:
        h = states[0]
        both = len(bias.shape) == 2
        left = x @ cell.kernel + (bias[0] if both else bias)
        u, right = cell.recurrent_kernel, (bias[1] if both else tf.zeros_like(bias))
        # A tap on the side of the input, where a gate is one sum.
        left = note("gate", tf.reshape(left, (-1, 3, width)))
        z = cell.recurrent_activation(left[:, 0] + h @ u[:, :width] + right[:width])
        r = cell.recurrent_activation(left[:, 1] + h @ u[:, width : 2 * width] + right[width : 2 * width])
        if cell.reset_after:
            n = cell.activation(left[:, 2] + r * (h @ u[:, 2 * width :] + right[2 * width :]))
        else:
            n = cell.activation(left[:, 2] + (r * h) @ u[:, 2 * width :])
        return [note("hidden", z * h + (1 - z) * n)]

    def simple_rnn(x: Any, states: Any, note: Any) -> Any:
        z = note("gate", x @ cell.kernel + bias + states[0] @ cell.recurrent_kernel)
        return [note("hidden", cell.activation(z))]

    return {"lstm": lstm, "gru": gru, "simple_rnn": simple_rnn}[kind]


def _of_any(cell: Any, x: Any, states: list[Any], note: Any) -> list[Any]:
    """A cell of somebody's own: its states alone are tapped."""
    output, after = cell(x, list(states))
    after = list(after) if isinstance(after, (list, tuple)) else [after]
    assert after[0] is output, "the oracle knows cells that hand out their first state"
    after[0] = note("hidden", after[0])
    return after


def where(mask: Any, one: Any, other: Any) -> Any:
    if mask is None:
        return one
    return tf.where(tf.reshape(mask, (-1, *(1,) * (len(one.shape) - 1))), one, other)


def unrolled(leaf: Leaf, layer: Any) -> Callable[..., Any]:
    """A recurrent layer's call as a Python loop over its steps."""

    def call(x: Any, mask: Any = None, training: Any = None, initial_state: Any = None) -> Any:
        del training
        if isinstance(x, list):
            x, initial_state = x[0], x[1:]
        mask = mask[0] if isinstance(mask, list) else mask
        given = layer.states if layer.stateful else initial_state or layer.get_initial_state(x)
        given = [tf.convert_to_tensor(state) for state in given]
        names = ("initial_hidden", "initial_cell")
        states = [leaf.tapped(name, state) for name, state in zip(names, given, strict=False)]
        notes, outputs = _loop(leaf, layer, x, mask, states)
        for name, pairs in notes["taps"].items():
            leaf.taps.setdefault(name, []).append(pairs)
        sequence = tf.stack(outputs, 1)
        result = sequence if layer.return_sequences else outputs[-1]
        return [result, *notes["states"]] if layer.return_state else result

    return call


def _loop(leaf: Leaf, layer: Any, x: Any, mask: Any, states: list[Any]) -> tuple[dict[str, Any], list[Any]]:
    """Outputs in processing order; taps and values in input time."""
    step, steps = step_of(layer.cell), range(x.shape[1])
    order = list(reversed(steps)) if layer.go_backwards else list(steps)
    taps: dict[str, dict[int, Any]] = {}
    outputs: list[Any] = []
    for t in order:
        valid = None if mask is None else mask[:, t]

        def note(name: str, value: Any, t: int = t, valid: Any = valid, states: Any = states) -> Any:
            old = {"hidden": states[0], "cell": states[-1]}.get(name)
            value = value if old is None else where(valid, value, old)
            taps.setdefault(name, {})[t] = leaf.zero(value)
            return value + taps[name][t]

        after = step(x[:, t], states, note)
        # States beyond those noted have no tap that would hold them.
        states = [
            new if name in taps else where(valid, new, old)
            for name, new, old in zip(("hidden", "cell"), after, states, strict=False)
        ] + list(after[2:])
        last = outputs[-1] if outputs else tf.zeros_like(after[0])
        outputs.append(where(valid, after[0], tf.zeros_like(last) if layer.zero_output_for_mask else last))
    in_time = sorted(order)
    return {
        "taps": {name: [each[t] for t in in_time] for name, each in taps.items()},
        "states": states,
    }, outputs


@contextmanager
def installed(layers: dict[str, Any], watch: Callable[[Any], None]) -> Iterator[dict[str, Leaf]]:
    """Put unrolled layers in the place of those of a model."""
    leaves = {path: Leaf(watch) for path in layers}
    changed = []
    for path, layer in layers.items():
        halves = [getattr(layer, name, None) for name in ("forward_layer", "backward_layer")]
        inner = layer.call if halves[0] is not None else unrolled(leaves[path], layer)
        for half in filter(None, halves):
            vars(half)["call"] = unrolled(leaves[path], half)
            changed.append(half)
        vars(layer)["call"] = outer(leaves[path], layer, inner)
        changed.append(layer)
    try:
        yield leaves
    finally:
        for layer in changed:
            del vars(layer)["call"]


def outer(leaf: Leaf, layer: Any, inner: Callable[..., Any]) -> Callable[..., Any]:
    def call(
        x: Any, mask: Any = None, training: Any = None, initial_state: Any = None, constants: Any = None
    ) -> Any:
        del training, constants
        for weight in layer.weights:  # those that are not trained as well
            leaf.watch(weight)
        first, rest = (x[0], x[1:]) if isinstance(x, list) else (x, [])
        if first.dtype.is_floating:
            first = leaf.tapped("input", first)
        keywords = {} if initial_state is None else {"initial_state": initial_state}
        result = inner([first, *rest] if rest else first, mask=mask, **keywords)
        parts = result if isinstance(result, list) else [result]
        count = 2 if getattr(layer, "merge_mode", "") is None else 1
        tapped = [leaf.tapped("output", part) for part in parts[:count]]
        leaf.weights = list(layer.weights)
        return [*tapped, *parts[count:]] if isinstance(result, list) else tapped[0]

    return call


def gradients(case: Case) -> dict[str, dict[str, np.ndarray]]:
    """All that the tree should hold, by path and by the schema's name, batch mean included."""
    if tf.executing_eagerly():
        with tf.GradientTape() as tape:
            loss, sources = _loss(case, tape.watch)
        arrays = tf.nest.map_structure(np.asarray, _differentiated(tape.gradient, loss, sources))
    else:
        loss, sources = _loss(case, lambda tap: None)
        arrays = session().run(_differentiated(tf.gradients, loss, sources))
    return {path: _arranged(case.layers[path], leaf) for path, leaf in arrays.items()}


def _loss(case: Case, watch: Callable[[Any], None]) -> tuple[Any, dict[str, Any]]:
    """The loss, and all that it is differentiated by: taps and weights, by path and name."""
    with installed(case.layers, watch) as leaves:
        loss = case.loss(case.y, case.model(case.tensors()))
    return loss, {
        path: {**{f"{name}_gradient": taps for name, taps in leaf.taps.items()}, "weights": leaf.weights}
        for path, leaf in leaves.items()
    }


def _differentiated(gradients: Callable[..., Any], loss: Any, sources: dict[str, Any]) -> Any:
    flat = tf.nest.flatten(sources)  # one backward pass for all
    return tf.nest.pack_sequence_as(sources, _filled(gradients(loss, flat), flat))


def _filled(found: list[Any], sources: list[Any]) -> list[Any]:
    return [
        tf.zeros_like(s) if g is None else tf.convert_to_tensor(g)
        for g, s in zip(found, sources, strict=True)
    ]


def _arranged(layer: Any, leaf: dict[str, Any]) -> dict[str, np.ndarray]:
    """Bring to (sample, time, [direction], …), and weights to the schema's names and axes."""
    both = hasattr(layer, "forward_layer")
    found: dict[str, np.ndarray] = {}
    for name, each in leaf.items():
        if name == "weights":
            continue
        if name in ("input_gradient", "output_gradient"):
            parts = [np.asarray(part) for part in each]
            array = parts[0] if len(parts) == 1 else np.stack(parts, -2)
            reverse = name == "output_gradient" and not both and layer.go_backwards and layer.return_sequences
            found[name] = array[:, ::-1] if reverse else array
        else:
            parts = [np.stack(part, 1) if isinstance(part, list) else np.asarray(part) for part in each]
            axis = 1 if name.startswith("initial") else 2
            found[name] = np.stack(parts, axis) if both else parts[0]
    return found | _weights(layer, leaf["weights"])


def _weights(layer: Any, arrays: list[Any]) -> dict[str, np.ndarray]:
    both = hasattr(layer, "forward_layer")
    halves = [layer.forward_layer, layer.backward_layer] if both else [layer]
    found: list[dict[str, np.ndarray]] = []
    coming = iter(arrays)
    for half in halves:
        found.append({})
        kind = kind_of(half.cell)
        names = [weight.name.rpartition("/")[2].partition(":")[0] for weight in half.weights]
        for name in names:
            array = np.asarray(next(coming))
            if names.count(name) > 1:  # layers inside a cell share names; the certificate compares them
                continue
            parts = 4 if type(half.cell).__name__ == "ConvLSTMCell" else PARTS.get(kind, 1)
            if parts > 1:
                array = array.reshape(*array.shape[:-1], parts, -1)
            if kind == "gru" and name == "bias" and array.ndim == 3:
                found[-1]["bias_gradient"], found[-1]["recurrent_bias_gradient"] = array
            else:
                found[-1][f"{name}_gradient"] = array
    return {name: np.stack([each[name] for each in found]) if both else found[0][name] for name in found[0]}
