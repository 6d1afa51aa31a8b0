"""Values that people pass by mistake, and some that nobody would: numbers, texts, arrays, objects."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import nn


class AskedError(Exception):
    """What an object raises that does not like to be asked."""


class Hostile:
    """Raises whatever it is asked."""

    def _raise(self, *_: Any, **__: Any) -> Any:
        raise AskedError

    __array__ = __bool__ = __eq__ = __float__ = __index__ = __iter__ = __len__ = __repr__ = __str__ = _raise
    __hash__ = None  # type: ignore[assignment]


_DTYPES = ("f4", ">f8", "c8", "M8[ns]", "m8[s]", "S3", "U3", "V4", "?", "i8", "u1", "f2", "g", "O")
_SHAPES = ((), (0,), (2,), (2, 3), (4, 6, 3), (4, 0, 3), (2, 2, 2, 2, 2))


def odd_values() -> list[Callable[[], Any]]:
    """List makers of odd values; each call makes a fresh one."""
    plain = [None, True, -1, 0, 1, 10**18, 10**40, 1.5, float("nan"), float("inf"), -float("inf"), 1e-320, 1j]
    plain += [
        "",
        "text",
        "a\0b",
        "x" * 300,
        "$\\frac{",
        "sample",
        "hidden_gradient",
        "kernel",
        b"bytes",
        ".",
        "/",
    ]
    plain += [[], (), {}, set(), [1, "a"], [None], range(3), slice(1), ..., NotImplemented, int, len, object]
    plain += [np.float32(2), np.int64(3), np.bool_(True), np.datetime64("2020"), pd.NA, pd.NaT]
    plain += [Path("x"), datetime.date(2020, 1, 1), {"a": 1}, {1: "b"}, [[1], [1, 2]], ("sample", "time")]
    makers: list[Callable[[], Any]] = [lambda value=value: value for value in plain]
    makers += [lambda d=d, s=s: _array(d, s) for d in _DTYPES for s in _SHAPES]
    tensors = ("float32", "bfloat16", "complex64", "int64", "bool")
    makers += [lambda d=d, s=s: torch.ones(s).to(getattr(torch, d)) for d in tensors for s in _SHAPES]
    makers += [
        Hostile,
        object,
        lambda: (each for each in (1, 2)),
        lambda: iter([1]),
        lambda: lambda *_: None,
        lambda: torch.eye(2).to_sparse(),
        lambda: torch.ones(2, 3, device="meta"),
        lambda: torch.ones(3, requires_grad=True),
        lambda: nn.utils.rnn.pack_sequence([torch.ones(2, 3)]),
        lambda: nn.LSTM(3, 4, batch_first=True),
        lambda: nn.LSTM(3, 4, device="meta"),
        lambda: np.ma.masked_array([1.0, 2.0], [True, False]),
        lambda: np.ones((4, 6, 3))[::-1],
        lambda: pd.Series([1.0, 2.0]),
        lambda: pd.DataFrame({"a": [1]}),
        lambda: xr.DataArray(np.ones((2, 3))),
        lambda: xr.DataArray(np.ones((2, 0)), dims=("sample", "time")),
        lambda: xr.DataArray(np.ones((3, 8, 2)), dims=("sample", "time", "unit"), name="hidden"),
    ]
    return makers


def _array(dtype: str, shape: tuple[int, ...]) -> Any:
    if dtype == "V4":
        return np.zeros(shape, "V4")
    return np.ones(shape).astype("i8").astype(dtype)
