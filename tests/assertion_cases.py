"""The assertions through pytest itself: one file of tests, run on models of each framework.

The recurrence is h_t = relu(gain · h_{t−1} + x_t) with positive inputs: linear, with R(k) = gain^k.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from xml.etree import ElementTree

import pytest

import throughtime as tt

# An installation registers the plugin; the source tree alone does not.
IS_REGISTERED = any(each.name == "throughtime" for each in entry_points(group="pytest11"))
PLUGIN = () if IS_REGISTERED else ("-p", "throughtime.assertions.plugin")

KERAS = """
import {keras} as keras

def adds_up(gain, steps=30, every_step=False):
    rnn = keras.layers.SimpleRNN(
        4, activation="relu", use_bias=False, kernel_initializer="ones", return_sequences=every_step,
        recurrent_initializer=keras.initializers.Identity(gain), name="rnn",
    )
    head = keras.layers.Dense(1, use_bias=False, kernel_initializer=keras.initializers.Constant(0.25))
    model = keras.Sequential([keras.Input((steps, 1)), rnn, head])
    model.compile("sgd", "mse")
    return model, {{}}

def spoil(model):
    rnn = model.get_layer("rnn")
    rnn.set_weights([weight * np.nan for weight in rnn.get_weights()])

array = np.asarray
"""

TORCH = """
import torch

class AddsUp(torch.nn.Module):
    def __init__(self, gain, every_step):
        super().__init__()
        self.rnn = torch.nn.RNN(1, 4, nonlinearity="relu", bias=False, batch_first=True)
        self.head, self.every_step = torch.nn.Linear(4, 1, bias=False), every_step
        with torch.no_grad():
            self.rnn.weight_ih_l0.fill_(1.0)
            self.rnn.weight_hh_l0.copy_(gain * torch.eye(4))
            self.head.weight.fill_(0.25)

    def forward(self, x):
        output = self.rnn(x)[0]
        return self.head(output if self.every_step else output[:, -1])

def adds_up(gain, steps=30, every_step=False):
    return AddsUp(gain, every_step), {"loss": lambda output, y: (output - y).square().mean(-1)}

def spoil(model):
    torch.nn.init.constant_(model.rnn.weight_hh_l0, float("nan"))

def array(values):
    return torch.from_numpy(values)
"""

JAX = """
import jax
import jax.numpy as jnp
from flax import nnx

class Cell(nnx.Module):
    def __init__(self, gain):
        self.kernel = nnx.Param(gain * jnp.eye(4))

    def __call__(self, state, entering):
        state = jax.nn.relu(state @ self.kernel[...] + entering)
        return state, state

class AddsUp(nnx.Module):
    def __init__(self, gain, every_step):
        self.rnn, self.every_step = Cell(gain), every_step

    def __call__(self, x):
        states = jax.lax.scan(self.rnn, jnp.zeros((len(x), 4)), x.swapaxes(0, 1))[1]
        output = states.mean(-1, keepdims=True).swapaxes(0, 1)
        return output if self.every_step else output[:, -1]

def adds_up(gain, steps=30, every_step=False):
    return AddsUp(gain, every_step), {"loss": lambda output, y: jnp.square(output - y).mean(-1)}

def spoil(model):
    model.rnn.kernel[...] = model.rnn.kernel[...] * jnp.nan

array = jnp.asarray
"""

TESTS = """
import numpy as np
{make}

def batch(gain, steps=30, every_step=False):
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(32, steps, 1)).astype("float32")
    sums = np.zeros((32, 1), "float32")
    y = np.stack([sums := gain * sums + x[:, t] for t in range(steps)], axis=1)
    y = (y + 0.01 * rng.normal(size=y.shape)).astype("float32")
    return array(x), array(y if every_step else y[:, -1])

def test_memory_passes(assert_reaches, assert_uses, assert_finite):
    (model, options), (x, y) = adds_up(1.0), batch(1.0)
    assert_reaches(model, x, y, lag=20, **options)
    assert_uses(model, x, y, lag=20, **options)
    assert_finite(model, x, y, **options)

def test_reach_fails(assert_reaches):
    (model, options), (x, y) = adds_up(0.5), batch(0.5)
    assert_reaches(model, x, y, lag=20, **options)

def test_use_fails(assert_uses):
    (model, options), (x, y) = adds_up(0.5), batch(0.5)
    assert_uses(model, x, y, lag=20, **options)

def test_finite_fails(assert_finite):
    (model, options), (x, y) = adds_up(0.5), batch(0.5)
    spoil(model)
    assert_finite(model, x, y, **options)

def test_no_leak_passes(assert_no_leak):
    (model, options), (x, y) = adds_up(0.0, 8, True), batch(0.0, 8, True)
    assert_no_leak(model, x[:4], y[:4], boundaries=[0, 5], **options)

def test_no_leak_fails(assert_no_leak):
    (model, options), (x, y) = adds_up(0.5, 8, True), batch(0.5, 8, True)
    starts = np.zeros((4, 8), bool)
    starts[2, 5] = starts[3, 0] = True
    assert_no_leak(model, x[:4], y[:4], boundaries=starts, **options)
"""

WORDS = (
    "*Gradient does not reach lag 20. At lag 20 the gradient is * of its size at lag 0 in rnn*",
    "*rnn: reach no: 9.54e-07 *, threshold 0.01*",
    "*throughtime verdict*",
    "*The model does not use inputs 20 or more steps back.*",
    "*rnn: use no: *, threshold 0.01*",
    "*Unstable: the first number that is not finite, in the forward pass, is nan in *",
    "*Gradient crosses 1 boundary: * of sample 2 leaks into step 5 *",
)


def check_assertions(folder: Path, make: str) -> None:
    """Run the tests in a process of their own; failures have the verdict's words, numbers and JSON.

    The fixture `pytester` would unload modules of this process, whose classes then exist two times.
    """
    (folder / "test_memory.py").write_text(TESTS.format(make=make), "utf-8")
    options = ("-q", "--disable-warnings", "--junit-xml=report.xml", "-o", "junit_family=xunit1")
    command = [sys.executable, "-m", "pytest", *PLUGIN, *options, "test_memory.py"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8", check=False)
    result = pytest.RunResult(run.returncode, run.stdout.splitlines(), run.stderr.splitlines(), 0.0)
    result.assert_outcomes(passed=2, failed=4)
    for words in WORDS:
        result.stdout.fnmatch_lines([words])
    result.stdout.no_fnmatch_line("*/throughtime/*.py:*")  # the user's own line is shown
    report = ElementTree.parse(folder / "report.xml")
    told = [each.attrib["value"] for each in report.iterfind(".//property[@name='throughtime.verdict']")]
    assert len(told) == 3  # a leak has no verdict
    (folder / "verdict.json").write_text(told[0], "utf-8")
    assert tt.read_verdict(folder / "verdict.json").layers["rnn"].reach.answer == "no"
