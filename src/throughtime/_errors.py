"""Every exception that throughtime raises on purpose, and the warnings it gives.

All of them derive from `ThroughTimeError` and from the builtin a caller would guess, so both
`except tt.ThroughTimeError` and `except ValueError` work::

    ThroughTimeError
    ├── ArgumentError (ValueError, TypeError)   an argument of a kind that the function does not take
    ├── UnsupportedModelError (TypeError)       the object is no model that an adapter knows
    ├── UnbuiltModelError (ValueError)          the model has no weights yet
    ├── LayerNotFoundError (LookupError)        no layer, or no call of it, answers to that name
    │   └── AmbiguousLayerError                 several do
    ├── LossError (ValueError)                  no loss, a loss without one value, labels that do not fit
    ├── NoGradientError (ValueError)            the loss does not depend on the tensor asked for
    ├── BatchError (ValueError, RuntimeError)   no batch in the data, or one that the model refuses
    ├── TooLargeError (MemoryError)             the capture needs more memory than there is
    ├── SchemaError (KeyError)                  a tree lacks the variable, or the name is none of the schema's
    ├── CellError (ValueError)                  a name that tt.mark cannot give, or a removed one
    ├── DiagnosticError (ValueError)            a capture that cannot be diagnosed, a setting out of range
    ├── MonitorError (ValueError)               a monitor that is set up in a way that cannot work
    ├── StoreError (OSError)                    a run that cannot be opened, or a step that does not fit it
    ├── VerdictError (AssertionError)           an assertion that the verdict on a model does not bear out
    ├── FeatureError (ValueError)               an array that a picture cannot be drawn from
    ├── PictureError (ValueError)               an axis, scale or file that a picture cannot have
    └── MissingDependencyError (ImportError)    an optional library is not installed

    ThroughTimeWarning (UserWarning)            something was done on the caller's behalf
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from typing import Any

_OURS = ("throughtime.", "contextlib.")


class ThroughTimeError(Exception):
    """Base class of every error raised by throughtime."""


class ArgumentError(ThroughTimeError, ValueError, TypeError):
    """An argument of a kind, or with a value, that the function does not take."""


class UnsupportedModelError(ThroughTimeError, TypeError):
    """The object passed as a model belongs to no supported framework."""


class UnbuiltModelError(ThroughTimeError, ValueError):
    """The model has never seen an input shape and so has no weights."""


class LayerNotFoundError(ThroughTimeError, LookupError):
    """No layer of the model answers to the name, index or object given."""


class AmbiguousLayerError(LayerNotFoundError):
    """More than one layer answers to the name given."""


class LossError(ThroughTimeError, ValueError):
    """There is no loss to differentiate, or it cannot be evaluated on these labels."""


class NoGradientError(ThroughTimeError, ValueError):
    """The loss does not depend on the tensor whose gradient was asked for."""


class BatchError(ThroughTimeError, ValueError, RuntimeError):
    """No batch could be taken from the data given, or the model refuses it."""


class TooLargeError(ThroughTimeError, MemoryError):
    """The capture would need more memory than is free, or than its budget allows; nothing was returned."""


class SchemaError(ThroughTimeError, KeyError):
    """A variable or quantity name that the schema or this tree does not have."""

    def __str__(self) -> str:
        # KeyError prints the repr of its argument, which hides line breaks.
        return str(self.args[0]) if self.args else ""


class CellError(ThroughTimeError, ValueError):
    """A name that `tt.mark` cannot give a tensor, or one of the removed registry of cells."""


class DiagnosticError(ThroughTimeError, ValueError):
    """A capture that cannot be diagnosed, or a setting outside its range."""


class MonitorError(ThroughTimeError, ValueError):
    """A monitor that is set up in a way that cannot work."""


class StoreError(ThroughTimeError, OSError):
    """A run on disk that cannot be opened or continued, or a step that does not fit it."""


class VerdictError(ThroughTimeError, AssertionError):
    """An assertion that the verdict on a model does not bear out; `found` is its diagnosis, or None."""

    def __init__(self, message: str, found: Any = None) -> None:
        super().__init__(message)
        self.found = found


class FeatureError(ThroughTimeError, ValueError):
    """An array from which the picture asked for cannot be drawn."""


class PictureError(ThroughTimeError, ValueError):
    """An axis, a scale, limits or a file that a picture cannot have."""


class MissingDependencyError(ThroughTimeError, ImportError):
    """An optional library is needed and not installed."""


class ThroughTimeWarning(UserWarning):
    """Something was decided or done on the caller's behalf."""


def did_you_mean(name: object, names: Iterable[object]) -> str:
    """Propose the name that was probably meant, as a sentence to add to a message; empty if none is near.

    Examples
    --------
    >>> did_you_mean("lowr", ["upper", "lower"])
    ' Did you mean lower?'
    """
    from difflib import get_close_matches  # noqa: PLC0415 - for errors alone

    known = {str(each).lower(): str(each) for each in names}
    near = get_close_matches(str(name).lower(), known, n=1)
    return f" Did you mean {known[near[0]]}?" if near else ""


def warn(message: str) -> None:
    """Give a `ThroughTimeWarning` whose place is the caller's own line, however deep it is noticed."""
    frame, level = sys._getframe(1), 2
    # contextlib calls our context managers for us.
    while frame.f_back is not None and f"{frame.f_globals.get('__name__')}.".startswith(_OURS):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, ThroughTimeWarning, stacklevel=level)
