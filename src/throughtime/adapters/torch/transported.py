"""The certificate of a loop: what others ask of a call's results, taken back through the call once more."""

from __future__ import annotations

import numpy as np
import torch

from throughtime.adapters.records import Array

from .calls import Step
from .marks import Gradients, flattened
from .recurrence import Recurrence
from .structure import numpy

_CHECKED = 5  # calls of a loop


def transported(recurrence: Recurrence, gradients: Gradients) -> tuple[Array | None, Array | None]:
    """Take what others ask of some calls' results back through each, beside dL/d(what entered) as found.

    They differ where gradient goes on from call to call by a way that is no state.

    Returns
    -------
    ndarray or None, ndarray or None (1, call, number)
    """
    chosen = sorted({round(k) for k in np.linspace(0, len(recurrence.steps) - 1, _CHECKED)})
    found = (_checked(recurrence, recurrence.steps[number], gradients) for number in chosen)
    pairs = [pair for pair in found if pair is not None]
    if not pairs:
        return None, None
    longest = max(len(ours) for ours, _ in pairs)
    both = np.zeros((2, 1, len(pairs), longest), pairs[0][0].dtype)
    for step, pair in enumerate(pairs):
        for side, values in enumerate(pair):
            both[side, 0, step, : len(values)] = values
    return both[0], both[1]


def _checked(recurrence: Recurrence, step: Step, gradients: Gradients) -> tuple[Array, Array] | None:
    results = {id(one.plain): one.plain for one in step.leaving.values()}.values()
    asked = [(plain, gradients.summed(recurrence.uses(plain, step))) for plain in results]
    asked = [(plain, gradient) for plain, gradient in asked if gradient is not None]
    marks = [one.mark for one in step.entering.values() if one.mark is not None]
    if not asked or not marks:
        return None
    tensors, back = zip(*asked, strict=True)
    found = torch.autograd.grad(tensors, marks, back, retain_graph=True, allow_unused=True)
    pairs = [(one, gradients.tensor(mark)) for mark, one in zip(marks, found, strict=True)]
    flat = [torch.cat(side) for side in zip(*map(flattened, pairs), strict=True)]
    return numpy(gradients.unscaled(flat[0])), numpy(gradients.unscaled(flat[1]))
