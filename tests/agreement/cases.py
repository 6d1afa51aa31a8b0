"""The layers that every framework is given, with the same weights and the same batch. Free of frameworks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import product

import numpy as np
import xarray as xr

from throughtime._vocabulary import GATES

SAMPLES, STEPS, FEATURES, UNITS = 4, 7, 3, 5
LENGTHS = np.array([STEPS, 4, 2, 5])
VALID = np.arange(STEPS) < LENGTHS[:, None]
KINDS = ("lstm", "gru", "simple_rnn")
DTYPES = ("float64", "float32")


@dataclass(frozen=True)
class Case:
    """One recurrent layer and a head that reads its last step or all steps."""

    kind: str
    bidirectional: bool
    masked: bool  # right padding, in torch a packed sequence
    return_sequences: bool

    @property
    def name(self) -> str:
        told = ("both ways" * self.bidirectional, "masked" * self.masked, "steps" * self.return_sequences)
        return " ".join([self.kind, *filter(None, told)])

    @property
    def steps_read(self) -> int:
        return STEPS if self.return_sequences else 1

    @property
    def width(self) -> int:
        return UNITS * (1 + self.bidirectional)


CASES = [Case(kind, *flags) for kind, *flags in product(KINDS, *[(False, True)] * 3)]
if os.environ.get("THROUGHTIME_QUICK") == "1":
    CASES = CASES[::7]  # each kind, and each flag on and off


def inputs(case: Case, dtype: str) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(SAMPLES, STEPS, FEATURES))
    return (x * VALID[..., None] if case.masked else x).astype(dtype)


def targets(dtype: str) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(SAMPLES, 1)).astype(dtype)


def valid(case: Case) -> np.ndarray:
    return VALID if case.masked else np.ones_like(VALID)


def head(case: Case) -> np.ndarray:
    """Weights of the head, (step · output unit, 1)."""
    return np.random.default_rng(2).normal(size=(case.steps_read * case.width, 1))


def weights(case: Case) -> xr.Dataset:
    """Weights in the layout of a captured layer, for the public converters."""
    rng = np.random.default_rng(3)
    gates = (len(GATES[case.kind]),) if case.kind in GATES else ()
    leading = (2,) if case.bidirectional else ()
    axes = ["direction"][: len(leading)], [*["gate"][: len(gates)], "unit"]
    shapes = {"kernel": ("feature", FEATURES), "recurrent_kernel": ("unit_from", UNITS), "bias": None}
    if case.kind == "gru":
        shapes["recurrent_bias"] = None
    arrays = {}
    for name, rows in shapes.items():
        dims = (*axes[0], *([rows[0]] if rows else []), *axes[1])
        shape = (*leading, *([rows[1]] if rows else []), *gates, UNITS)
        arrays[name] = (dims, rng.normal(0, 0.5, shape))
    return xr.Dataset(arrays, attrs={"kind": case.kind, "reset_after": 1})
