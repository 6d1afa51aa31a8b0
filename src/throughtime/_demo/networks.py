"""The parts that the demo needs from a framework: a network, its training step, its accuracy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import throughtime as tt
from throughtime.diagnosis import Diagnosis

Digits = npt.NDArray[np.float32]  # (sample, time, 1)
Classes = npt.NDArray[np.int64]

UNITS = 32
CLASSES = 10
STEPS = 64
HALF = 32  # steps: the upper half of a digit lies as far back when its last pixel is read
LEARNING_RATE = 5e-3
CLIP = 1.0
BOTH_WAYS = "Bidirectional "  # before the kind in a network's name: half the units read backward


@dataclass(frozen=True)
class Network:
    """Two recurrent layers of one kind, "lower" and "upper", and ten classes read from the last step."""

    model: Any
    loss: Any  # of a model without a loss
    probe: tt.Probe
    train: Callable[[Digits, Classes], None]
    accuracy: Callable[[Digits, Classes], float]
    diagnose: Callable[[Digits, Classes], Diagnosis]
