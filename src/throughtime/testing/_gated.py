"""LSTM and GRU layers without a recurrent kernel, whose gates and gradients have closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from throughtime._inputs import takes
from throughtime._inputs.rules import choice, number, whole
from throughtime._vocabulary import GATES
from throughtime.testing._closed_forms import Floats, captured_tree, direction_of_loss, sums, unit_vectors


@takes(keep=number(0, 1, inside=True), kind=choice("lstm", "gru"))
def constant_gates(
    keep: float = 0.7310585786300049,
    *,
    kind: str = "lstm",
    samples: int = 1,
    steps: int = 50,
    units: int = 4,
) -> xr.DataTree:
    """LSTM or GRU with W = U = 0: the forget (LSTM) or update (GRU) gate is `keep` at every step.

    The LSTM's dL/dh_t is exactly 0 before the last step, while dL/dc_t falls only by the factor `keep` per
    step.

    Parameters
    ----------
    keep : float in (0, 1)
        The default is sigmoid(1), a forget bias of 1.
    kind : "lstm" or "gru"
    samples, steps, units : int

    Examples
    --------
    >>> leaf = constant_gates(keep=0.5)["rnn"].to_dataset().isel(sample=0, unit=0)
    >>> leaf["hidden_gradient"].values[-2:]
    array([0. , 0.5])
    >>> leaf["cell_gradient"].values[-2] / leaf["cell_gradient"].values[-1]
    np.float64(0.5)
    """
    gates = GATES[kind]
    before = {"forget": logit(keep), "update": logit(keep), "candidate": 1.0}
    bias = np.array([[before.get(gate, 0.0)] * units for gate in gates])
    inputs = unit_vectors(samples, steps, units)
    return gated_cell(kind, inputs, np.zeros((units, len(gates), units)), bias)


@takes(left=number(0, 1), right=number(0, 1))
def saturated_gates(
    *, left: float = 0.25, right: float = 0.5, samples: int = 1, steps: int = 40, units: int = 4
) -> xr.DataTree:
    """LSTM whose gates are shut for the first share of steps, open for the last, half open between.

    Parameters
    ----------
    left, right : float
        Shares of the steps at which every gate is at the low and at the high end of its range.
    samples, steps, units : int

    Examples
    --------
    >>> leaf = saturated_gates(left=0.5, right=0.25, steps=4)["rnn"].to_dataset()
    >>> leaf["gate_activation"].sel(gate="forget").isel(sample=0, unit=0).values.round(2)
    array([0.02, 0.02, 0.5 , 0.98])
    """
    time = np.arange(steps)
    level = np.where(
        time < round(left * steps), -4.0, np.where(time >= steps - round(right * steps), 4.0, 0.0)
    )
    inputs = np.broadcast_to(level[:, None], (samples, steps, 1))
    return gated_cell("lstm", inputs, np.ones((1, 4, units)), np.zeros((4, units)))


@takes(
    variable=choice("hidden", "cell", "hidden_gradient", "cell_gradient"),
    value=number(finite=False),
    sample=whole(0, 2),
    time=whole(0, 19),
    unit=whole(0, 3),
)
def nonfinite(
    variable: str = "hidden", *, value: float = np.nan, sample: int = 1, time: int = 7, unit: int = 2
) -> xr.DataTree:
    """LSTM (3 samples, 20 steps, 4 units) with one number that is not finite, and its consequences.

    Parameters
    ----------
    variable : "hidden", "cell", "hidden_gradient" or "cell_gradient"
        Variable of that number. A state affects the later steps and all gradients of its sample, a gradient
        the earlier steps.
    value : float
        NaN or an infinity.
    sample, time, unit : int

    Examples
    --------
    >>> leaf = nonfinite("cell", time=3)["rnn"].to_dataset()
    >>> int(leaf["cell"].notnull().all("unit").isel(sample=1).sum())
    3
    """
    leaf = constant_gates(samples=3, steps=20)["rnn"].to_dataset().copy(deep=True)
    gradient = variable.endswith("_gradient")
    after = slice(None, time) if gradient else slice(time + 1, None)
    states = [name for name in ("hidden", "cell") if not gradient]
    for name in states:
        leaf[name][{"sample": sample, "time": after}] = np.nan
    for name in ("hidden_gradient", "cell_gradient", "gate_gradient", "input_gradient"):
        leaf[name][{"sample": sample, "time": after if gradient else slice(None)}] = np.nan
    leaf[variable][{"sample": sample, "time": time, "unit": unit}] = value
    return xr.DataTree.from_dict({"/rnn": leaf})


def logit(share: float) -> float:
    return float(np.log(share / (1 - share)))


def _sigmoid(value: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-value)))


def gated_cell(kind: str, inputs: Floats, kernel: Floats, bias: Floats) -> xr.DataTree:
    """Solve an LSTM or GRU with U = 0 and the loss ⟨v, h_T⟩, whose adjoint has a closed form."""
    values = np.einsum("btm,mgn->btgn", inputs, kernel) + bias
    at = GATES[kind].index("candidate")
    gates = _sigmoid(values)
    gates[:, :, at] = np.tanh(values[:, :, at])
    arrays = (_lstm if kind == "lstm" else _gru)(gates)
    units = bias.shape[-1]
    back = arrays["gate_gradient"]
    asked = back.copy()  # dz on the recurrent side, which a GRU's reset gate scales
    if kind == "gru":
        asked[:, :, at] *= gates[:, :, GATES[kind].index("reset")]
    arrays |= {
        "input": inputs,
        "valid": np.ones(inputs.shape[:2], dtype=bool),
        "output": arrays["hidden"][:, -1],
        "output_gradient": arrays["hidden_gradient"][:, -1],
        "input_gradient": np.einsum("btgn,mgn->btm", back, kernel),
        "gate_activation": gates,
        "kernel": kernel,
        "recurrent_kernel": np.zeros((units, *bias.shape)),
        "bias": bias,
        **sums(inputs, arrays["hidden"], back, asked),
    }
    flags: dict[str, Any] = {"activation": "tanh", "recurrent_activation": "sigmoid"}
    if kind == "gru":
        flags["reset_after"] = 1
    return captured_tree(kind, arrays, **flags)


def _lstm(gates: Floats) -> dict[str, Any]:
    i, f, g, o = np.moveaxis(gates, 2, 0)
    cell, before = np.zeros_like(i), np.zeros_like(i)
    for t in range(i.shape[1]):
        before[:, t] = cell[:, t - 1] if t else 0.0
        cell[:, t] = f[:, t] * before[:, t] + i[:, t] * g[:, t]
    dh, dc = np.zeros_like(i), np.zeros_like(i)
    dh[:, -1] = direction_of_loss(i.shape[-1])
    dc[:, -1] = dh[:, -1] * o[:, -1] * (1 - np.tanh(cell[:, -1]) ** 2)
    for t in reversed(range(i.shape[1] - 1)):
        dc[:, t] = dc[:, t + 1] * f[:, t + 1]
    back = [
        dc * g * i * (1 - i),
        dc * before * f * (1 - f),
        dc * i * (1 - g**2),
        dh * np.tanh(cell) * o * (1 - o),
    ]
    return {
        "cell": cell,
        "cell_gradient": dc,
        "hidden": o * np.tanh(cell),
        "hidden_gradient": dh,
        "gate_gradient": np.stack(back, axis=2),
    }


def _gru(gates: Floats) -> dict[str, Any]:
    z, r, g = np.moveaxis(gates, 2, 0)
    hidden, before = np.zeros_like(z), np.zeros_like(z)
    for t in range(z.shape[1]):
        before[:, t] = hidden[:, t - 1] if t else 0.0
        hidden[:, t] = z[:, t] * before[:, t] + (1 - z[:, t]) * g[:, t]
    dh = np.zeros_like(z)
    dh[:, -1] = direction_of_loss(z.shape[-1])
    for t in reversed(range(z.shape[1] - 1)):
        dh[:, t] = dh[:, t + 1] * z[:, t + 1]
    # The reset gate multiplies h U = 0, so its gradient is 0.
    back = [dh * (before - g) * z * (1 - z), np.zeros_like(r), dh * (1 - z) * (1 - g**2)]
    return {"hidden": hidden, "hidden_gradient": dh, "gate_gradient": np.stack(back, axis=2)}
