"""Random layers and batches, with the hidden states that an independent forward pass gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from tests.cells.forward import Case

from throughtime.cells import Layer, Pass

KINDS = ("simple_rnn", "lstm", "gru", "gru_reset_before")
GATES = {"simple_rnn": 1, "lstm": 4, "gru": 3, "gru_reset_before": 3}
MASKS = ("none", "right", "left", "random", "one_sample")


def layer(
    kind: str,
    rng: np.random.Generator,
    features: int = 2,
    units: int = 3,
    *,
    scale: float = 0.8,
    **options: Any,
) -> Layer:
    gates = (GATES[kind],) if kind != "simple_rnn" else ()
    return Layer(
        kind="gru" if kind.startswith("gru") else kind,
        kernel=rng.normal(scale=scale, size=(features, *gates, units)),
        recurrent_kernel=rng.normal(scale=scale, size=(units, *gates, units)),
        bias=rng.normal(scale=0.3, size=(*gates, units)),
        recurrent_bias=rng.normal(scale=0.3, size=(*gates, units)) if kind == "gru" else None,
        reset_after=kind != "gru_reset_before",
        **options,
    )


def mask(name: str, rng: np.random.Generator, samples: int, steps: int) -> np.ndarray | None:
    lengths = rng.integers(1, steps + 1, size=(samples, 1))
    at = np.arange(steps)
    if name == "none":
        return None
    if name == "right":
        return at < lengths
    if name == "left":
        return at >= steps - lengths
    valid = rng.random((samples, steps)) < 0.6
    if name == "one_sample":
        valid[0] = False
    return valid


def batch(
    rng: np.random.Generator,
    samples: int = 3,
    steps: int = 5,
    features: int = 2,
    units: int = 3,
    *,
    masked: str = "none",
    states: bool = False,
    gradient: str = "all",
    **options: Any,
) -> Pass:
    """`gradient`: all steps, the last output, final states only, or everything."""

    def vector() -> np.ndarray:
        return rng.normal(size=(samples, units))

    output_gradient = None
    if gradient in ("all", "everything"):
        output_gradient = rng.normal(size=(samples, steps, units))
    elif gradient == "last":
        output_gradient = vector()
    final = gradient in ("final", "everything")
    return Pass(
        inputs=rng.normal(size=(samples, steps, features)),
        hidden=np.zeros((samples, steps, units)),
        output_gradient=output_gradient,
        valid=mask(masked, rng, samples, steps),
        initial=(vector(), vector()) if states else (),
        final_gradients=(vector(), vector()) if final else (),
        **options,
    )


def solved_case(layer: Layer, passed: Pass) -> Case:
    """Fill in what the framework would have emitted."""
    case = Case(layer, passed)
    return replace(case, passed=replace(passed, hidden=case.run()["output"]))


def difference(value: np.ndarray, expected: np.ndarray) -> float:
    """‖a − b‖ / ‖b‖ over the array; the norm itself where b is 0."""
    assert value.shape == expected.shape, (value.shape, expected.shape)
    size = float(np.linalg.norm(expected))
    return float(np.linalg.norm(value - expected)) / (size or 1.0)


def in_single_precision(given: Any) -> Any:
    """Round every array of a Layer or Pass to float32."""
    arrays = {name: value for name, value in vars(given).items() if isinstance(value, np.ndarray)}
    return replace(
        given, **{name: value.astype(np.float32) for name, value in arrays.items() if value.dtype != bool}
    )
