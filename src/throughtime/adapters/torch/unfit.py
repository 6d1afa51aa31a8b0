"""What a recurrent layer takes and what it was called with, in words, where the two do not fit."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence


def why_unfit(name: str, module: Any, given: Any) -> str:
    """Say why a layer or cell cannot be meant to read this; empty where it can.

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
