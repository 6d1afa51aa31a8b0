"""Parts of a diagnosis: the verdict, and for each layer answers with intervals and evidence.

These are frozen and without logic: `judge` fills them, `Diagnosis` shows them, `compare` compares two.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import xarray as xr

from throughtime.adapters.optimizer import OptimizerStep
from throughtime.diagnostics import rules

NAN = float("nan")
YES, NO, UNCLEAR = rules.YES, rules.NO, rules.UNCLEAR
NOT_MEASURED, NOT_DEFINED = "not measured", "not defined"
QUESTIONS = ("reach", "share", "use")


class Verdict(StrEnum):
    """The result of a diagnosis in one word.

    Attributes
    ----------
    USES
        The model uses information at the lag, and the gradient reaches it.
    WEAK_SIGNAL
        The model uses it, but the gradient there is weak.
    UNUSED
        The gradient reaches the lag, but predictions do not depend on it.
    NO_EVIDENCE
        Neither use nor gradient was found there; whether that is a fault depends on the task.
    UNSTABLE
        Gradients grow through time and disrupt training, or a number is not finite.
    CANNOT_SAY
        The measurements do not decide; the text names those that would.

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
    """The arguments of `diagnose`, and what is known besides.

    `losses` are those of a run's records before the diagnosed one, and `unread` has the layers whose reach
    was not measured, with the reason. `labels` is the shape of the labels, `bad_label` finds one that is
    not finite, and `far_labels` describes those far from 0, if a loss shows that they are not learned.
    `padding` describes inputs that seem to be padded at their end.
    """

    dependency_length: int | None = None
    solved: float | None = None
    seed: int = 0
    optimizer: OptimizerStep = field(default_factory=OptimizerStep)
    losses: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[int, ...] = ()
    bad_label: Callable[[], str] = str
    far_labels: Callable[[float], str] = field(default=lambda loss: "")
    padding: Callable[[], str] = str


@dataclass(frozen=True)
class Answer:
    """The answer to one question.

    Attributes
    ----------
    answer : "yes", "no", "unclear", "not measured" or "not defined"
    value : float
        Dimensionless; NaN if it was not measured.
    interval : tuple of float
        95 % over samples; NaN if there is none.
    n : int
        Number of samples.
    threshold : float
        Threshold with which the interval was compared.
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
    """One measurement that helps to explain the result: its name, its value, and both in words."""

    name: str
    value: float
    text: str


@dataclass(frozen=True)
class Remedy:
    """A remedy: its text, its evidence, its source and its short name."""

    text: str
    evidence: str
    source: str
    name: str = ""


READING = ("ends", "last_step", "batch_first")  # names of remedies for how a layer is read


@dataclass(frozen=True)
class LayerDiagnosis:
    """One direction of one layer.

    Attributes
    ----------
    kind : str
        `lstm`, `gru`, ….
    reach : Answer
        R at the judged lag: the gradient there as a fraction of that at lag 0.
    share : Answer
        The fraction of the step contributions that comes from that lag and beyond.
    use : Answer
        U at that lag: the rise of the loss if inputs that old come from another sample, as a fraction of the
        rise if all inputs do.
    why : tuple of Evidence
    curve : Dataset (lag) or None
        `ratio`, `low`, `high`: R at lags 1, 2, 4, …
    horizon : str
        Median of the largest lag with 1 % of the gradient, "≥" if the sequences end first.
    horizon_interval : tuple of float
        In timesteps, 95 %; infinity beyond the window.
    k90 : float
        Median of the lag within which 90 % of the step contributions lie, in timesteps.
    verdict : Verdict
    is_cell : bool
        Whether it is one of torch's cells, called in a loop.
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
    is_cell: bool = False

    @property
    def answers(self) -> dict[str, Answer]:
        """The answers by question."""
        return {question: getattr(self, question) for question in QUESTIONS}

    @property
    def evidence(self) -> dict[str, Evidence]:
        """The evidence by name."""
        return {each.name: each for each in self.why}


def steps_of(horizon: str) -> float:
    """Return a horizon in timesteps, also one that is a lower bound; NaN if it was not measured.

    >>> steps_of("≥ 49"), steps_of("6"), steps_of(NOT_MEASURED)
    (49.0, 6.0, nan)
    """
    return NAN if horizon == NOT_MEASURED else float(horizon.removeprefix("≥ "))


@dataclass(frozen=True)
class Results:
    """All results of a diagnosis, without its printing; see `Diagnosis`.

    Attributes
    ----------
    stopped : str
        The reason why nothing was judged, "nonfinite", "loss_scaling" or "certificate"; otherwise empty.
    is_solved : bool or None
        Whether the loss is at or below the `solved` that the caller passed; None without `solved`.
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
    is_solved: bool | None = None

    @property
    def inputs(self) -> str:
        """The inputs at the judged lag, in words: one if the window ends there."""
        known = [each.curve.attrs["window"] for each in self.layers.values() if each.curve is not None]
        is_last = self.lag == max(known, default=0) - 1
        steps = f"{self.lag} step{'s' * (self.lag != 1)} back"
        return f"the input {steps}" if is_last else f"inputs {self.lag} or more steps back"

    @property
    def largest_use(self) -> Answer:
        """The use of the layer that uses most: layers that read inputs of other lengths differ."""
        uses = (each.use for each in self.layers.values())
        return max(uses, key=lambda use: (not math.isnan(use.value), use.n > 0, use.value))

    @property
    def uses_newest_alone(self) -> bool:
        """Whether inputs lower the loss, and none of them is older than the step that the model reads."""
        denied = all(each.use.answer == NO and not each.use.reason for each in self.layers.values())
        is_open = self.dependency_length is None and self.verdict is not Verdict.UNSTABLE
        return bool(self.layers) and is_open and denied

    @property
    def misread(self) -> tuple[Remedy, ...]:
        """How to read layers that the model reads after a single step."""
        return tuple(each for each in self.remedies if each.name in READING)
