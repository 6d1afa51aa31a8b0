"""What each sample of a batch loses, in a pass forward without gradients: one sample after another."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from throughtime._memory.budget import Budget
from throughtime.adapters.records import Array

from . import find, structure
from .forward import autocast_off, called, labels_beside, place
from .loss import Labels, check_loss, samples_of, total
from .marks import Marks
from .meter import Meter
from .restore import gradients_on, stand_in, untouched
from .tap import Recorder

_NOTHING: frozenset[str] = frozenset()


def losses(model: Any, x: Any, y: Any, sample_weight: Any, *, loss: Any, training: bool) -> Array:
    """Evaluate what each sample loses alone, in float64.

    Returns
    -------
    ndarray (sample)

    Raises
    ------
    LossError
        The loss fails on single samples.
    """
    model = find.checked(model)
    check_loss(loss)
    kept = untouched(model, loss)
    with kept, kept, gradients_on(), torch.no_grad():
        stand_in(model, loss, [], training=training)
        device, dtype = place(model)
        inputs = structure.own(x, device, dtype)
        recorder = Recorder([], [], Marks(_NOTHING), inputs, Meter(Budget(None, 1, 1), _NOTHING))
        recorder.watch(model)
        output = called(model, inputs)
        labels = labels_beside(model, y, sample_weight, output, recorder)
        recorder.close()
        size = recorder.sizes[0]
        data = output, labels.y, labels.sample_weight

        def alone(sample: int) -> float:
            part = structure.mapped(lambda leaf: samples_of(leaf, size, (sample,), 0), data)
            return float(total(loss, part[0], Labels(*part[1:])))

        with autocast_off(output):
            return np.array([alone(sample) for sample in range(size)])
