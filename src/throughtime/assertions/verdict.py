"""Reach, use and finite numbers, as `diagnose` judges them."""

from __future__ import annotations

import warnings
from typing import Any

import throughtime as tt
from throughtime._errors import DiagnosticError, LayerNotFoundError, VerdictError, did_you_mean
from throughtime._inputs import takes
from throughtime._inputs.rules import whole
from throughtime.diagnosis.diagnosis import cell
from throughtime.diagnosis.fail_on import best
from throughtime.diagnosis.results import NO, YES

_LAG = whole(1, of="timesteps")
_HEADLINES = {
    "reach": ("Gradient does not reach lag {lag}.", "Whether gradient reaches lag {lag} is undecided."),
    "use": (
        "The model does not use inputs {lag} or more steps back.",
        "Whether the model uses inputs {lag} or more steps back is undecided.",
    ),
}


@takes(DiagnosticError, lag=_LAG)
def assert_reaches(
    model: Any, x: Any = None, y: Any = None, *, lag: int, layer: str | None = None, **options: Any
) -> None:
    """Fail unless gradient reaches inputs a lag back.

    Passes if reach R(lag) is at least 0.01 with 95 % confidence, in one layer or direction at least.

    Parameters
    ----------
    model : model, a capture of one, or a run
    x, y, **options
        See `diagnose`: `loss`, `sample_weight`, `seed`, ….
    lag : int
        In timesteps.
    layer : str, optional
        Path of the layer that has to be reached: `lstm`, or `lstm[forward]` of two directions.

    Raises
    ------
    VerdictError
        Gradient does not reach the lag, or too few samples decide it. It is an `AssertionError`.
    DiagnosticError
        `lag` is no whole number of 1 or more.
    LayerNotFoundError
        The diagnosis has no such layer.

    Examples
    --------
    >>> from throughtime import testing
    >>> assert_reaches(testing.decaying(rate=0.9, samples=16), lag=20)
    >>> assert_reaches(testing.decaying(rate=0.5, samples=16), lag=20)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    throughtime._errors.VerdictError: Gradient does not reach lag 20. At lag 20 the gradient is ... %...
    """
    __tracebackhide__ = True
    _require_yes("reach", tt.diagnose(model, x, y, dependency_length=lag, **options), layer)


@takes(DiagnosticError, lag=_LAG)
def assert_uses(
    model: Any, x: Any = None, y: Any = None, *, lag: int, layer: str | None = None, **options: Any
) -> None:
    """Fail unless the model uses inputs a lag or more back.

    Passes if use U(lag) is at least 0.01 with 95 % confidence: the loss rises when inputs that old come from
    another sample.

    Parameters
    ----------
    model, x, y, lag, layer, **options
        See `assert_reaches`. Use needs the model and its labels; a capture or run has none.

    Raises
    ------
    VerdictError
        The model does not use inputs that old, or too few samples decide it. It is an `AssertionError`.
    DiagnosticError, LayerNotFoundError
        See `assert_reaches`.

    Examples
    --------
    >>> import torch
    >>> rnn = torch.nn.RNN(1, 4, nonlinearity="relu", batch_first=True)
    >>> _ = [torch.nn.init.eye_(rnn.weight_hh_l0), torch.nn.init.ones_(rnn.weight_ih_l0)]
    >>> x = torch.rand(256, 30, 1, generator=torch.Generator().manual_seed(0))
    >>> def loss(output, y):
    ...     return (output[0][:, -1].mean(1) - y).square()
    >>> assert_uses(rnn, x, x.sum((1, 2)), loss=loss, lag=20)  # it adds up all inputs
    """
    __tracebackhide__ = True
    _require_yes("use", tt.diagnose(model, x, y, dependency_length=lag, **options), layer)


def assert_finite(model: Any, x: Any = None, y: Any = None, **options: Any) -> None:
    """Fail if a number of the recurrent layers, forward or backward, is NaN or infinite.

    Parameters
    ----------
    model : model, or a capture of one
    x, y, **options
        See `capture`: `loss`, `sample_weight`, `training`, ….

    Raises
    ------
    VerdictError
        With the first such number: layer, variable, sample, timestep, unit. It is an `AssertionError`.

    Examples
    --------
    >>> from throughtime import testing
    >>> assert_finite(testing.decaying(rate=0.9))
    >>> assert_finite(testing.nonfinite("cell", sample=1, time=7, unit=2))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    throughtime._errors.VerdictError: Unstable: the first number that is not finite, in the forward pass, ...
    """
    __tracebackhide__ = True
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The certificate of")  # NaN spoils it
        tree = model if x is None and hasattr(model, "dims") else tt.capture(model, x, y, **options)
    found = tt.diagnose(tree)
    if found.stopped in ("nonfinite", "loss_scaling"):
        raise VerdictError(found.text, found)


def _require_yes(question: str, found: Any, layer: str | None) -> None:
    """Raise unless the answer to a question is yes, in one layer or in the layer named."""
    __tracebackhide__ = True
    layers = found.layers
    if layer is not None and layers and layer not in layers:
        hint = did_you_mean(layer, layers)
        raise LayerNotFoundError(f"layer={layer!r}: expected one of {', '.join(layers)}.{hint}")
    answers = {path: getattr(each, question) for path, each in layers.items() if layer in (None, path)}
    answer = best(one.answer for one in answers.values())
    if answer == YES:
        return
    no, undecided = _HEADLINES[question]
    lines = [(no if answer == NO else undecided).format(lag=found.dependency_length), found.text]
    lines += [
        f"\n{path}: {question} {cell(one)}, threshold {one.threshold:g}{one.reason and f' ({one.reason})'}"
        for path, one in answers.items()
    ]
    raise VerdictError(" ".join(lines), found)
