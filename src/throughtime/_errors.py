"""All exceptions that throughtime raises on purpose, and its warnings.

Each exception derives from `ThroughTimeError` and from the builtin that a caller would expect, so both
`except tt.ThroughTimeError` and `except ValueError` work::

    ThroughTimeError
    ├── ArgumentError (ValueError, TypeError)   an argument has the wrong type or value
    ├── UnsupportedModelError (TypeError)       no adapter supports the model
    ├── UnbuiltModelError (ValueError)          the model has no weights yet
    ├── LayerNotFoundError (LookupError)        no layer, or no call of a layer, has that name
    │   └── AmbiguousLayerError                 several layers have that name
    ├── LossError (ValueError)                  no loss, a loss that is not scalar, labels that do not fit
    ├── NoGradientError (ValueError)            the loss does not depend on the requested tensor
    ├── BatchError (ValueError, RuntimeError)   the data contain no batch, or the model refuses it
    ├── TooLargeError (MemoryError)             the capture needs more memory than is available
    ├── SchemaError (KeyError)                  a tree lacks the variable, or the name is unknown
    ├── CellError (ValueError)                  tt.mark cannot give this name
    ├── DiagnosticError (ValueError)            the capture cannot be diagnosed, or a setting is out of range
    ├── MonitorError (ValueError)               the settings of a monitor cannot work
    ├── StoreError (OSError)                    a run cannot be opened, or a step does not fit it
    ├── SweepError (ValueError, RuntimeError)   a sweep cannot begin or continue
    ├── VerdictError (AssertionError)           the verdict on a model contradicts an assertion
    ├── FeatureError (ValueError)               the array cannot be drawn
    ├── PictureError (ValueError)               a plot cannot have this axis, scale or file
    └── MissingDependencyError (ImportError)    an optional library is not installed

    ThroughTimeWarning (UserWarning)            something was decided on the caller's behalf
"""

import sys
import warnings
from collections.abc import Iterable
from typing import Any

_OURS = ("throughtime.", "contextlib.")


class ThroughTimeError(Exception):
    """Base class of every error raised by throughtime."""


class ArgumentError(ThroughTimeError, ValueError, TypeError):
    """An argument has the wrong type or value."""


class UnsupportedModelError(ThroughTimeError, TypeError):
    """No adapter supports the object that was passed as a model."""


class UnbuiltModelError(ThroughTimeError, ValueError):
    """The model has no weights yet, because it was never built for an input shape."""


class LayerNotFoundError(ThroughTimeError, LookupError):
    """No layer of the model has this name or index, or is this object."""


class AmbiguousLayerError(LayerNotFoundError):
    """More than one layer has this name."""


class LossError(ThroughTimeError, ValueError):
    """The loss is missing, or it cannot be evaluated on these labels."""


class NoGradientError(ThroughTimeError, ValueError):
    """The loss does not depend on the tensor whose gradient was requested."""


class BatchError(ThroughTimeError, ValueError, RuntimeError):
    """The data contain no batch, or the model refuses it."""


class TooLargeError(ThroughTimeError, MemoryError):
    """The capture would need more memory than is free, or than its budget allows."""


class SchemaError(ThroughTimeError, KeyError):
    """A name is not in the vocabulary, or a tree lacks the variable."""

    def __str__(self) -> str:
        # KeyError prints the repr of its argument, which escapes line breaks.
        return str(self.args[0]) if self.args else ""


class CellError(ThroughTimeError, ValueError):
    """`tt.mark` cannot give a tensor this name."""


class DiagnosticError(ThroughTimeError, ValueError):
    """The capture cannot be diagnosed, or a setting is out of range."""


class MonitorError(ThroughTimeError, ValueError):
    """The settings of a monitor cannot work."""


class StoreError(ThroughTimeError, OSError):
    """A run on disk cannot be opened or continued, or a step does not fit it."""


class SweepError(ThroughTimeError, ValueError, RuntimeError):
    """A sweep cannot begin or continue."""


class VerdictError(ThroughTimeError, AssertionError):
    """The verdict on a model contradicts an assertion; `found` is its diagnosis, or None."""

    def __init__(self, message: str, found: Any = None) -> None:
        super().__init__(message)
        self.found = found


class FeatureError(ThroughTimeError, ValueError):
    """The array cannot be drawn as requested."""


class PictureError(ThroughTimeError, ValueError):
    """A plot cannot have this axis, scale, limit or file."""


class MissingDependencyError(ThroughTimeError, ImportError):
    """An optional library is required, but not installed."""


class ThroughTimeWarning(UserWarning):
    """Something was decided on the caller's behalf."""


def did_you_mean(name: object, names: Iterable[object]) -> str:
    """Return a sentence that proposes the most similar name, for a message; empty if none is similar.

    >>> did_you_mean("lowr", ["upper", "lower"])
    ' Did you mean lower?'
    """
    from difflib import get_close_matches  # noqa: PLC0415 - needed only for errors

    known = {str(each).lower(): str(each) for each in names}
    near = get_close_matches(str(name).lower(), known, n=1)
    return f" Did you mean {known[near[0]]}?" if near else ""


def warn(message: str) -> None:
    """Issue a `ThroughTimeWarning` at the line of the user's code, however deep it is issued."""
    frame, level = sys._getframe(1), 2
    # contextlib's frames lie between ours, because it calls our context managers.
    while frame.f_back is not None and f"{frame.f_globals.get('__name__')}.".startswith(_OURS):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, ThroughTimeWarning, stacklevel=level)
