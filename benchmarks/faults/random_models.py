"""Captures random recurrent models and compares every array with an autodiff that is written here.

`python benchmarks/faults/random_models.py [150] [seed]`: torch modules, and every third a Keras model on the
backend in KERAS_BACKEND. The networks are built anew from torch's elementary operations on the weights, step
by step, every state kept in the graph, in float64. Prints the arrays compared, the largest error for each
precision, and every certificate above its bar.
"""

import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import torch
from torch import nn

import throughtime as tt
from throughtime import cells

ALLOWED = {"float64": 1e-9, "float32": 2e-3}  # float32: gradients that grow for 25 steps amplify rounding
GATES = {"lstm": ("input", "forget", "candidate", "output"), "gru": ("update", "reset", "candidate")}


@dataclass
class Case:
    label: str
    kind: str
    precision: str
    valid: torch.Tensor
    activation: Callable = torch.tanh
    reset_after: bool = True


def step(case, weights, x, states):
    """One step from the weights as the tree names them: gates apart, units last."""
    kind, activation, reset_after = case.kind, case.activation, case.reset_after
    w, u = weights["kernel"], weights["recurrent_kernel"]
    b, rb = weights.get("bias", 0.0), weights.get("recurrent_bias", 0.0)
    if kind == "simple_rnn":
        z = x @ w + states[0] @ u + b + rb
        return (activation(z),), z
    into = torch.einsum("sf,fgu->sgu", x, w) + b
    if kind == "lstm":
        z = into + torch.einsum("sv,vgu->sgu", states[0], u) + rb
        z.retain_grad()
        i, f, g, o = z.unbind(1)
        cell = f.sigmoid() * states[1] + i.sigmoid() * g.tanh()
        cell.retain_grad()
        hidden = o.sigmoid() * cell.tanh()
        if "projection" in weights:
            hidden = hidden @ weights["projection"]
        return (hidden, cell), z
    into.retain_grad()
    gates = (
        into[:, :2]
        + torch.einsum("sv,vgu->sgu", states[0], u[:, :2])
        + (rb[:2] if torch.is_tensor(rb) else 0)
    )
    update, reset = gates.sigmoid().unbind(1)
    bias = rb[2] if torch.is_tensor(rb) else 0.0
    if reset_after:
        candidate = torch.tanh(into[:, 2] + reset * (states[0] @ u[:, 2] + bias))
    else:
        candidate = torch.tanh(into[:, 2] + (reset * states[0]) @ u[:, 2] + bias)
    return (update * states[0] + (1 - update) * candidate,), into


def direction(case, weights, x, backward):
    """All steps of one direction; what is masked keeps its states and emits 0."""
    kind, valid = case.kind, case.valid
    width = weights["recurrent_kernel"].shape[0]
    units = weights["recurrent_kernel"].shape[-1]
    states = (torch.zeros(len(x), width, dtype=x.dtype),)
    states += (torch.zeros(len(x), units, dtype=x.dtype),) if kind == "lstm" else ()
    kept, outputs, columns = [], [], []
    order = range(x.shape[1])
    for t in reversed(order) if backward else order:
        after, z = step(case, weights, x[:, t], states)
        on = valid[:, t, None]
        states = tuple(torch.where(on, new, old) for new, old in zip(after, states, strict=True))
        for each in (*states, z):
            if each.requires_grad:
                each.retain_grad()
        kept.append((*states, *after[1:]))
        columns.append(z)
        outputs.append(states[0] * on)
    if backward:
        kept, outputs, columns = kept[::-1], outputs[::-1], columns[::-1]
    return outputs, kept, columns


class Compared:
    def __init__(self):
        self.arrays, self.worst, self.alarms, self.wrong = 0, {}, [], []

    def add(self, label, precision, ours, theirs):
        ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
        error = (
            float(np.linalg.norm(ours - theirs) / max(np.linalg.norm(theirs), 1e-30))
            if theirs.any() or ours.any()
            else 0.0
        )
        self.arrays += 1
        if error > self.worst.get(precision, (-1.0,))[0]:
            self.worst[precision] = error, label
        if not error <= ALLOWED[precision]:
            self.wrong.append((label, precision, error))


def stacked(values):
    return (
        torch.stack([value if value is not None else torch.zeros(()) for value in values], 1).detach().numpy()
    )


def gradients(tensors):
    like = [torch.zeros_like(each) if each.grad is None else each.grad for each in tensors]
    return torch.stack(like, 1).numpy()


def leaves_of(weights):
    return {
        name: torch.tensor(np.asarray(value), dtype=torch.float64, requires_grad=True)
        for name, value in weights.items()
    }


def note_alarms(case, found, path, leaf):
    for name in ("certificate_weights", "certificate_time"):
        worst = float(np.nan_to_num(leaf[name].values).max())
        if worst > cells.bar(case.precision):
            found.alarms.append((case.label, path, name, case.precision, worst))


def compare(case, found, tree, paths, x, loss):
    """Rebuild the whole network from the tree's weights, and compare every array of each layer.

    `loss` is what follows the last recurrent layer, down to a number.
    """
    label, precision, valid = case.label, case.precision, case.valid
    names = ("kernel", "recurrent_kernel", "bias", "recurrent_bias", "projection")
    layers, value = [], torch.tensor(x, dtype=torch.float64, requires_grad=True)
    for path in paths:
        leaf = tree[path].to_dataset()
        ways = leaf["direction"].values if "direction" in leaf.dims else [None]
        value = value if value.is_leaf else value.clone()
        value.retain_grad() if not value.is_leaf else None
        parts = []
        for way in ways:
            one = leaf if way is None else leaf.sel(direction=way)
            held = leaves_of({name: one[name].values for name in names if name in leaf})
            inputs = value.view_as(value)
            inputs.retain_grad()
            parts.append((one, held, *direction(case, held, inputs, way == "backward")))
        output = torch.cat([torch.stack(part[2], 1) for part in parts], -1)
        output.retain_grad()
        layers.append((path, parts, output, value))
        value = output
    loss(value).backward()
    scale = 1.0 / float(tree[paths[0]]["reduction_factor"])
    for path, parts, output, entered in layers:
        leaf = tree[path].to_dataset()
        found.add(
            f"{label} {path} output_gradient",
            precision,
            leaf["output_gradient"],
            scale * (output.grad * valid[..., None]).numpy(),
        )
        if "input_gradient" in leaf:
            found.add(
                f"{label} {path} input_gradient",
                precision,
                leaf["input_gradient"],
                scale * entered.grad.numpy(),
            )
        note_alarms(case, found, path, leaf)
        for one, held, _, kept, columns in parts:
            for place, state in enumerate(("hidden", "cell")[: len(kept[0])]):
                found.add(
                    f"{label} {path} {state}", precision, one[state], stacked([each[place] for each in kept])
                )
                reached = scale * gradients([each[place] for each in kept])
                if state == "cell":  # at a valid step also on the way through its own hidden state
                    on = valid.numpy()[..., None]
                    reached = np.where(on, scale * gradients([each[2] for each in kept]), reached)
                found.add(f"{label} {path} d{state}", precision, one[f"{state}_gradient"], reached)
            on = np.broadcast_to(
                valid.numpy()[(..., *(None,) * (columns[0].ndim - 1))], gradients(columns).shape
            )
            found.add(
                f"{label} {path} gate_gradient",
                precision,
                one["gate_gradient"],
                scale * gradients(columns) * on,
            )
            for name, weight in held.items():
                found.add(
                    f"{label} {path} {name}_gradient", precision, one[f"{name}_gradient"], weight.grad.numpy()
                )


class Network(nn.Module):
    def __init__(self, kind, features, units, head, settings):
        super().__init__()
        self.rnn = {"lstm": nn.LSTM, "gru": nn.GRU, "simple_rnn": nn.RNN}[kind](
            features, units, batch_first=True, **settings
        )
        self.out, self.head = (
            nn.Linear((settings.get("proj_size") or units) * (1 + settings["bidirectional"]), 2),
            head,
        )

    def forward(self, x):
        sequence = self.rnn(x)[0]
        if isinstance(sequence, nn.utils.rnn.PackedSequence):
            sequence = nn.utils.rnn.pad_packed_sequence(sequence, batch_first=True)[0]
        return self.read(sequence)

    def read(self, sequence):
        return self.out(
            {"last": lambda s: s[:, -1], "mean": lambda s: s.mean(1), "every": lambda s: s}[self.head](
                sequence
            )
        )


def torch_model(number, rng, found):
    kind = ("lstm", "gru", "simple_rnn")[rng.integers(3)]
    features, units, layers = int(rng.integers(1, 6)), int(rng.integers(2, 10)), int(rng.integers(1, 3))
    samples, steps, both = int(rng.integers(1, 6)), int(rng.integers(1, 26)), bool(rng.integers(2))
    projection = int(rng.integers(1, units)) if kind == "lstm" and rng.random() < 0.25 else 0
    relu, head = bool(rng.integers(2)), ("last", "mean", "every")[rng.integers(3)]
    precision = ("float32", "float64")[rng.integers(2)]
    options = {"num_layers": layers, "bidirectional": both, "bias": bool(rng.integers(2))}
    options |= {"nonlinearity": "relu" if relu else "tanh"} if kind == "simple_rnn" else {}
    options |= {"proj_size": projection} if projection else {}
    model = Network(kind, features, units, head, options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(float(rng.uniform(0.5, 2.0)))
    model = model.to(getattr(torch, precision))
    x = torch.tensor(rng.normal(size=(samples, steps, features)), dtype=getattr(torch, precision))
    valid, given = torch.ones(samples, steps, dtype=torch.bool), x
    if steps > 1 and rng.random() < 0.3:
        lengths = torch.tensor(rng.integers(1, steps + 1, samples))
        lengths[0] = steps
        valid = torch.arange(steps) < lengths[:, None]
        given = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    y = torch.tensor(rng.normal(size=model(given).shape), dtype=x.dtype)
    loss = nn.MSELoss(reduction=("mean", "sum")[rng.integers(2)])
    tree = tt.capture(model, given, y, loss=loss)
    paths = [f"rnn/{layer}" for layer in range(layers)] if layers > 1 else ["rnn"]
    model.out = model.out.double()

    def wide(value):
        return loss(model.read(value), y.double())

    activation = torch.relu if relu and kind == "simple_rnn" else torch.tanh
    case = Case(f"torch {number} {kind}", kind, precision, valid, activation)
    if activation is torch.tanh or precision == "float64":  # a relu at 0 has two slopes
        compare(case, found, tree, paths, np.where(valid[..., None], x.numpy(), 0), wide)


def keras_model(number, rng, found):
    kind = ("lstm", "gru", "simple_rnn")[rng.integers(3)]
    features, units, samples, steps = (
        int(rng.integers(low, high)) for low, high in ((1, 6), (2, 10), (2, 6), (2, 20))
    )
    both, masked, after = bool(rng.integers(2)), bool(rng.random() < 0.4), bool(rng.integers(2))
    settings = {"reset_after": after} if kind == "gru" else {}
    layer = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "simple_rnn": keras.layers.SimpleRNN}[kind](
        units, return_sequences=True, name="rnn", **settings
    )
    layer = keras.layers.Bidirectional(layer, name="rnn") if both else layer
    layer_in = keras.Input((steps, features))
    value = keras.layers.Masking()(layer_in) if masked else layer_in
    dense = keras.layers.Dense(2)
    model = keras.Model(layer_in, dense(layer(value)))
    model.compile(loss="mse")
    x = rng.normal(size=(samples, steps, features)).astype("float32")
    lengths = rng.integers(1, steps + 1, samples) if masked and both else np.full(samples, steps)
    x[np.arange(steps) >= lengths[:, None]] = 0
    y = rng.normal(size=(samples, steps, 2)).astype("float32")
    valid = torch.tensor(np.arange(steps) < lengths[:, None])
    tree = tt.capture(model, x, y)
    kernel, bias = (torch.tensor(np.asarray(each), dtype=torch.float64) for each in dense.get_weights())
    weight = valid.double()[..., None] if masked else torch.ones(samples, steps, 1).double()

    def wide(out):
        errors = ((out @ kernel + bias) - torch.tensor(y).double()) ** 2
        return (errors * weight).mean(-1).sum() / weight.sum()

    case = Case(f"keras {number} {kind}", kind, "float32", valid, reset_after=after)
    compare(case, found, tree, ["rnn"], x, wide)


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 150
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    found = Compared()
    warnings.simplefilter("ignore")
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        torch.manual_seed(number)
        keras.utils.set_random_seed(number)
        (keras_model if number % 3 == 2 else torch_model)(number, rng, found)
    print(f"{count} models, {found.arrays} arrays")
    for precision, (error, label) in found.worst.items():
        print(f"largest error in {precision}: {error:.2e}, {label}")
    for alarm in found.alarms:
        print("certificate above its bar:", *alarm)
    for wrong in found.wrong:
        print("WRONG:", *wrong)
    sys.exit(bool(found.wrong))


if __name__ == "__main__":
    main()
