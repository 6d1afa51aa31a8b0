"""Where samples and steps stand in a layer's tensors: batch second, or packed sequences of several lengths.

Inside the adapter sequences are time-major, (time, sample, …) or packed; records are sample-major.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from throughtime.adapters.records import Array


@dataclass(frozen=True)
class Dense:
    """Every sample has every step."""

    samples: int
    steps: int

    def reversed(self, tensor: torch.Tensor) -> torch.Tensor:
        """Turn the order of time around."""
        return tensor.flip(0)

    def by_sample(self, array: Array) -> Array:
        """Turn (time, sample, …) into (sample, time, …)."""
        return array.swapaxes(0, 1)

    def in_order(self, states: Array) -> Array:
        """Bring states (sample, …) into the order of the samples."""
        return states

    @property
    def valid(self) -> npt.NDArray[np.bool_]:
        """Steps that exist, (sample, time)."""
        return np.ones((self.samples, self.steps), bool)


@dataclass(frozen=True)
class Packed:
    """Sequences packed step after step, the longest first.

    `batch_sizes` (time) counts the samples that have each step. `unsorted` has where each of the caller's
    samples stands in the packed order; None where that is their order.
    """

    batch_sizes: torch.Tensor
    unsorted: torch.Tensor | None

    @property
    def samples(self) -> int:
        """Number of sequences."""
        return int(self.batch_sizes[0])

    @property
    def steps(self) -> int:
        """Length of the longest."""
        return len(self.batch_sizes)

    @cached_property
    def _places(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Step and packed sample of each row of the data."""
        sizes = self.batch_sizes.numpy()
        steps = np.repeat(np.arange(len(sizes)), sizes)
        return steps, np.concatenate([np.arange(size) for size in sizes])

    def reversed(self, tensor: torch.Tensor) -> torch.Tensor:
        """Turn the order of time around within each sequence."""
        sizes, (steps, samples) = self.batch_sizes.numpy(), self._places
        lengths = np.bincount(samples)
        first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        rows = first[lengths[samples] - 1 - steps] + samples
        return tensor.index_select(0, torch.from_numpy(rows).to(tensor.device))

    def by_sample(self, array: Array) -> Array:
        """Turn packed data into (sample, time, …), 0 where a sequence has ended."""
        steps, samples = self._places
        padded = np.zeros((self.samples, self.steps, *array.shape[1:]), array.dtype)
        padded[samples, steps] = array
        return self.in_order(padded)

    def in_order(self, states: Array) -> Array:
        """Bring states (sample, …) from the packed order into that of the caller's samples."""
        return states if self.unsorted is None else states[self.unsorted.cpu().numpy()]

    @property
    def valid(self) -> npt.NDArray[np.bool_]:
        """Steps that exist, (sample, time)."""
        return self.by_sample(np.ones(len(self._places[0]), bool))


Layout = Dense | Packed


def samples(module: Any, given: Any) -> int:
    """Count the samples that a recurrent layer or a cell is called with; 1 where there is no batch."""
    if isinstance(given, PackedSequence):
        return int(given.batch_sizes[0])
    if not isinstance(given, torch.Tensor):
        return 1
    if isinstance(module, nn.RNNCellBase):
        return int(given.shape[0]) if given.ndim == 2 else 1
    return int(given.shape[0 if module.batch_first else 1]) if given.ndim == 3 else 1


def why_unfit(name: str, module: Any, given: Any) -> str:
    """Return why a layer or cell cannot be meant to read this; empty where it can.

    Examples
    --------
    >>> why_unfit("lstm", nn.LSTM(3, 4), torch.ones(5, 2, 7))
    'lstm takes 3 features, and got 7 in a tensor (5, 2, 7)'
    """
    tensor = given.data if isinstance(given, PackedSequence) else given
    weight = next(module.parameters(), None)
    if not isinstance(tensor, torch.Tensor) or weight is None:
        return ""
    shape = tuple(tensor.shape)
    if tensor.dtype != weight.dtype and not torch.is_autocast_enabled(tensor.device.type):
        return f"{name} takes {weight.dtype}, and got {tensor.dtype}"
    if shape[-1:] != (module.input_size,):
        return f"{name} takes {module.input_size} features, and got {shape[-1]} in a tensor {shape}"
    if isinstance(module, nn.RNNBase) and tensor is given and len(shape) == 2:
        order = "sample, time" if module.batch_first else "time, sample"
        return (
            f"{name} takes ({order}, {module.input_size}), and got {shape}, without an axis of samples. Make "
            "a batch of one sample: x[None]"
        )
    return ""
