"""The oracle for cells in a user's own loop: each call unrolled by hand, states tapped on both sides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tests.torch import oracle
from torch import nn

Tensor = torch.Tensor


@dataclass
class Sequence:
    """Values and taps (sample, …) of each call."""

    kind: str
    weights: list[Tensor]
    values: dict[str, list[Tensor]] = field(default_factory=dict)
    taps: dict[str, list[Tensor]] = field(default_factory=dict)

    def note(self, name: str, value: Tensor) -> Tensor:
        self.values.setdefault(name, []).append(value)
        self.taps.setdefault(name, []).append(oracle.zero_like(value))
        return value + self.taps[name][-1]


class Cell:
    """An nn.RNNCell, LSTMCell or GRUCell; a state without a history begins a new sequence."""

    def __init__(self, found: Any, path: str, module: Any) -> None:
        self.found, self.path, self.module = found, path, module
        kinds = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "simple_rnn": nn.RNNCell}
        self.kind = next(name for name, kind in kinds.items() if isinstance(module, kind))

    @property
    def weights(self) -> list[Tensor]:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return [w for w in (getattr(self.module, name) for name in names) if w is not None]

    def forward(self, x: Tensor, hx: Any = None) -> Any:
        batched = x if x.ndim == 2 else x.unsqueeze(0)
        given = hx if isinstance(hx, tuple) or hx is None else (hx,)
        if given is None:
            zeros = torch.zeros(*x.shape[:-1], self.module.hidden_size).to(x)
            given = (zeros, zeros)[: 2 if self.kind == "lstm" else 1]
        if not given[0].requires_grad:
            self.found.cells[self.found.next_path(self.path)] = self.now = Sequence(self.kind, self.weights)
        states = [state if x.ndim == 2 else state.unsqueeze(0) for state in given]
        out = self._step(batched, states)
        out = out if x.ndim == 2 else [state.squeeze(0) for state in out]
        return tuple(out) if len(out) > 1 else out[0]

    def _step(self, x: Tensor, states: list[Tensor]) -> list[Tensor]:
        now = self.now
        x = now.note("input", x)
        states = [now.note(name, state) for name, state in zip(("from_h", "from_c"), states, strict=False)]
        relu = getattr(self.module, "nonlinearity", "tanh") == "relu"
        step = oracle.Steps(self.kind, self.weights, relu=relu)
        rows: dict[str, list[Tensor]] = {}
        # Taps are made for the whole batch, each sample gets its row.
        taps: dict[str, Tensor] = {}

        def note(name: str, value: Tensor, sample: int) -> Tensor:
            if name not in taps:
                taps[name] = torch.zeros(len(x), *value.shape, dtype=value.dtype, requires_grad=True)
            rows.setdefault(name, []).append(value)
            return value + taps[name][sample]

        ends = [
            step(x[b], [s[b] for s in states], lambda name, value, b=b: note(name, value, b))
            for b in range(len(x))
        ]
        for name, values in rows.items():
            now.values.setdefault(name, []).append(torch.stack(values))
            now.taps.setdefault(name, []).append(taps[name])
        return [torch.stack(each) for each in zip(*ends, strict=True)]


def leaf(seen: Sequence, loss: Tensor) -> dict[str, np.ndarray]:
    """Differentiate, and arrange by the schema: (sample, time, …)."""

    def over_time(tensors: list[Tensor]) -> np.ndarray:
        return np.stack([tensor.detach().numpy() for tensor in tensors], 1)

    gradient = {name: over_time(oracle.grads(loss, taps)) for name, taps in seen.taps.items()}
    found = {
        "input": over_time(seen.values["input"]),
        "input_gradient": gradient["input"],
        "output": over_time(seen.values["hidden"]),
        "hidden": over_time(seen.values["hidden"]),
        "hidden_gradient": gradient["hidden"],
        "gate_gradient": gradient["gate"],
        "initial_hidden_gradient": gradient["from_h"][:, 0],
    }
    # The next call's own share, where the state is handed on as it is.
    later = np.concatenate([gradient["from_h"][:, 1:], np.zeros_like(gradient["from_h"][:, :1])], 1)
    found["output_gradient"] = gradient["hidden"] - later
    if seen.kind == "lstm":
        found["cell"] = over_time(seen.values["cell"])
        found["cell_gradient"] = gradient["cell"]
        found["initial_cell_gradient"] = gradient["from_c"][:, 0]
    if seen.kind in oracle.GATES:
        found["gate_activation"] = oracle.in_order(seen.kind, over_time(seen.values["activation"]))
        found["gate_gradient"] = oracle.in_order(seen.kind, found["gate_gradient"])
    names = ("kernel", "recurrent_kernel", "bias", "recurrent_bias")
    for name, weight, total in zip(names, seen.weights, oracle.grads(loss, seen.weights), strict=False):
        found[name] = oracle.gates_apart(seen.kind, name, weight)
        found[f"{name}_gradient"] = oracle.gates_apart(seen.kind, name, total)
    return found
