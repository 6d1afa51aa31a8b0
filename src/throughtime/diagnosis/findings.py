"""What a diagnosis holds: answers with their intervals, evidence, remedies, layer by layer.

Frozen records without logic of their own: `judge` fills them, `render` shows them, `compare` puts two beside
each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import xarray as xr

from throughtime.adapters.optimizer import OptimizerStep

NAN = float("nan")
YES, NO, UNCLEAR, NOT_MEASURED, NOT_DEFINED = "yes", "no", "unclear", "not measured", "not defined"


class Verdict(StrEnum):
    """The result of a diagnosis in one word.

    Attributes
    ----------
    USES
        The model uses information at the lag, and error signal reaches it.
    WEAK_SIGNAL
        It uses it, and the signal that teaches it is weak.
    UNUSED
        Error signal reaches the lag, predictions do not depend on it.
    NO_EVIDENCE
        Neither use nor signal was found there; whether that is a fault depends on the task.
    UNSTABLE
        Gradients grow through time and training comes undone by it, or a number is not finite.
    CANNOT_SAY
        What was measured does not decide; the text names what would.

    Examples
    --------
    >>> Verdict("uses") is Verdict.USES, Verdict.USES == "uses"
    (True, True)
    """

    USES = "uses"
    WEAK_SIGNAL = "weak_signal"
    UNUSED = "unused"
    NO_EVIDENCE = "no_evidence"
    UNSTABLE = "unstable"
    CANNOT_SAY = "cannot_say"


@dataclass(frozen=True)
class Asked:
    """What the caller wants to know.

    Attributes
    ----------
    dependency_length : int or None
    solved : float or None
        The loss at or below which nothing needs to be changed.
    seed : int
    optimizer : OptimizerStep
    losses : tuple of float
        Of the records of a run before the one that is diagnosed, the first one first.
    notes : tuple of str
    unread : mapping of str to str
        Layers whose reach was not measured, with the reason.
    """

    dependency_length: int | None = None
    solved: float | None = None
    seed: int = 0
    optimizer: OptimizerStep = field(default_factory=OptimizerStep)
    losses: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """One question answered.

    Attributes
    ----------
    answer : "yes", "no", "unclear", "not measured" or "not defined"
    value : float
        Dimensionless; NaN where nothing was measured.
    interval : tuple of float
        95 % over samples; NaN where there is none.
    n : int
        Samples that it rests on.
    threshold : float
        What the interval was held against.
    reason : str
        Why it is unclear or not measured.
    """

    answer: str
    value: float = NAN
    interval: tuple[float, float] = (NAN, NAN)
    n: int = 0
    threshold: float = NAN
    reason: str = ""


@dataclass(frozen=True)
class Evidence:
    """One thing measured that helps to explain: its name, its value, and both in words."""

    name: str
    value: float
    text: str


@dataclass(frozen=True)
class Remedy:
    """Something to try, the evidence it rests on, where it comes from, and its short name."""

    text: str
    evidence: str
    source: str
    name: str = ""


READING = ("ends", "last_step")  # names of remedies for how a layer is read


@dataclass(frozen=True)
class LayerDiagnosis:
    """One direction of one layer.

    Attributes
    ----------
    kind : str
        `lstm`, `gru`, ….
    reach : Answer
        R at the lag judged: error signal there as a fraction of that at lag 0.
    share : Answer
        The fraction of the step contributions that comes from that lag and beyond.
    use : Answer
        U at that lag: the rise of the loss when inputs that old come from another sample, as a fraction of
        the rise when all do.
    why : tuple of Evidence
    curve : Dataset (lag) or None
        `ratio`, `low`, `high`: R at lags 1, 2, 4, …
    horizon : str
        Median of the largest lag with 1 % of the signal, "≥" where the sequences end first.
    horizon_interval : tuple of float
        In timesteps, 95 %; infinity beyond the window.
    k90 : float
        Median of the lag within which 90 % of the step contributions lie, in timesteps.
    verdict : Verdict
    """

    kind: str
    reach: Answer
    share: Answer
    use: Answer
    why: tuple[Evidence, ...] = ()
    curve: xr.Dataset | None = None
    horizon: str = NOT_MEASURED
    horizon_interval: tuple[float, float] = (NAN, NAN)
    k90: float = NAN
    verdict: Verdict = Verdict.CANNOT_SAY


@dataclass(frozen=True)
class Found:
    """All that a diagnosis found, before it can print itself; see `Diagnosis`.

    Attributes
    ----------
    stopped : str
        What made every number meaningless, so that nothing was judged: "nonfinite", "loss_scaling",
        "certificate"; otherwise empty.
    """

    verdict: Verdict
    sentences: tuple[str, ...]
    lag: int | None
    dependency_length: int | None
    layers: Mapping[str, LayerDiagnosis] = field(default_factory=dict)
    use_curve: xr.Dataset | None = None
    why: tuple[Evidence, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    notes: tuple[str, ...] = ()
    loss: float = NAN
    samples: int = 0
    framework: str = ""
    stopped: str = ""

    @property
    def misread(self) -> tuple[Remedy, ...]:
        """How to read layers that the model reads after a single step."""
        return tuple(each for each in self.remedies if each.name in READING)
