"""Gradient norms that a training loop reports: the norm before clipping, and how far it was clipped."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from throughtime._capture.label import NamedArray
from throughtime._errors import MonitorError
from throughtime.diagnostics.alarm import Alarm

_MOST = 1024  # norms kept as tensors, perhaps on an accelerator, before they are read
_CONCERNED = ("nonfinite", "explosion")  # alarms for which a norm is evidence


class StepNorms(NamedTuple):
    """The norms that a training loop reports for one optimizer step: scalars of any framework."""

    step: int
    norm: Any
    clip_norm: Any
    clipped_norm: Any
    loss_scale: Any


class _Read(NamedTuple):
    """The same as numbers: the norm without loss scale, and the share that clipping left, NaN if unknown."""

    step: int
    norm: float
    ratio: float
    is_skipped: bool


@dataclass(frozen=True)
class Norms:
    """Norms reported since the last record; `numbers` is empty if the loop has not reported any.

    `gradient_norm` and `clip_ratio` describe the last step, `gradient_norm_largest` and `clipped_share` all
    steps since the last record. `broken` is the first step whose norm was not finite although no loss scale
    explains it, and that norm.
    """

    numbers: dict[str, float] = field(default_factory=dict)
    broken: tuple[int, float] | None = None

    def arrays(self) -> dict[str, NamedArray]:
        """Return these numbers as variables of a run's root."""
        return {name: NamedArray((), np.asarray(value, np.float64)) for name, value in self.numbers.items()}

    def explain(self, alarms: Iterable[Alarm], step: int) -> Iterator[Alarm]:
        """Add the norm to the evidence of related alarms; a norm that is not finite is an alarm by itself."""
        is_raised = False
        for alarm in alarms:
            is_raised = is_raised or alarm.name == "nonfinite"
            is_concerned = alarm.name in _CONCERNED and self.numbers
            yield replace(alarm, evidence=f"{alarm.evidence}; {self._words(step)}") if is_concerned else alarm
        if self.broken and not is_raised:
            yield Alarm("nonfinite", "", self.broken[0], self._words(step))

    def _words(self, step: int) -> str:
        at, norm = self.broken or (step, self.numbers["gradient_norm"])
        ratio = self.numbers["clip_ratio"]
        clipped = f", clipped to {ratio:.2g} of it" if ratio < 1 and not self.broken else ""
        return f"the norm of all gradients before clipping was {norm:.3g} at step {at}{clipped}"


class GradientNorms:
    """Collects norms between records. Tensors are converted to numbers only when a record is made."""

    def __init__(self) -> None:
        self._pending: list[StepNorms] = []
        self._read: list[_Read] = []
        self._is_in_use = False

    def add(self, norms: StepNorms) -> None:
        self._is_in_use = True
        self._pending.append(norms)
        if len(self._pending) >= _MOST:
            self._read_all()

    def take(self) -> Norms:
        """Summarize the norms reported since the last call; one that is no number raises MonitorError."""
        if not self._is_in_use:
            return Norms()
        self._read_all()
        read, self._read = self._read, []
        made = [each for each in read if not each.is_skipped]
        broken = next(((each.step, each.norm) for each in made if not np.isfinite(each.norm)), None)
        ratios = [each.ratio for each in made if not np.isnan(each.ratio)]
        numbers = {
            "gradient_norm": read[-1].norm if read else np.nan,
            "gradient_norm_largest": float(np.max([each.norm for each in made])) if made else np.nan,
            "clip_ratio": read[-1].ratio if read else np.nan,
            "clipped_share": float(np.mean([ratio < 1 for ratio in ratios])) if ratios else np.nan,
        }
        return Norms(numbers, broken)

    def _read_all(self) -> None:
        pending, self._pending = self._pending, []
        self._read += [_read(each) for each in pending]


def _read(norms: StepNorms) -> _Read:
    scale = 1.0 if norms.loss_scale is None else _number("loss_scale", norms.loss_scale)
    norm = _number("gradient_norm", norms.norm) / scale
    is_skipped = norms.loss_scale is not None and not np.isfinite(norm)
    return _Read(norms.step, norm, _ratio(norms, norm, scale), is_skipped)


def _ratio(norms: StepNorms, norm: float, scale: float) -> float:
    """Share of the norm that clipping left; NaN if unknown."""
    if norms.clip_norm is not None:
        clipped = min(norm, _number("clip_norm", norms.clip_norm))
    elif norms.clipped_norm is not None:
        clipped = _number("clipped_norm", norms.clipped_norm) / scale
    else:
        return np.nan
    if not np.isfinite(norm):
        return np.nan
    return clipped / norm if norm > 0 else 1.0


def _number(name: str, value: Any) -> float:
    try:
        number = float(value.detach() if hasattr(value, "detach") else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise MonitorError(f"step({name}=...) takes a number or a scalar tensor, not {value!r}.") from error
    if number < 0 or (name == "loss_scale" and not 0 < number < np.inf):
        allowed = "positive" if name == "loss_scale" else "0 or more"
        raise MonitorError(f"step({name}={number:g}): {name} must be {allowed}.")
    return number
