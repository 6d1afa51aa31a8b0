"""See what flows through time inside recurrent neural networks.

The public names, each loaded when it is first used: importing throughtime imports no framework and no
drawing library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from throughtime import assertions as assertions
    from throughtime import diagnostics as diagnostics
    from throughtime import loggers as loggers
    from throughtime import picture as picture
    from throughtime import plots as plots
    from throughtime import testing as testing
    from throughtime._capture.capture import capture as capture
    from throughtime._capture.lag_matrix import lag_matrix as lag_matrix
    from throughtime._capture.probe import Probe as Probe
    from throughtime._capture.summary import summary as summary
    from throughtime._capture.weights import weights as weights
    from throughtime._classic import get_rnn_gradients as get_rnn_gradients
    from throughtime._classic import show_features_0D as show_features_0D
    from throughtime._classic import show_features_1D as show_features_1D
    from throughtime._classic import show_features_2D as show_features_2D
    from throughtime._classic import show_features_hist as show_features_hist
    from throughtime._drawing.theme import Theme as Theme
    from throughtime._errors import AmbiguousLayerError as AmbiguousLayerError
    from throughtime._errors import ArgumentError as ArgumentError
    from throughtime._errors import BatchError as BatchError
    from throughtime._errors import CellError as CellError
    from throughtime._errors import DiagnosticError as DiagnosticError
    from throughtime._errors import FeatureError as FeatureError
    from throughtime._errors import LayerNotFoundError as LayerNotFoundError
    from throughtime._errors import LossError as LossError
    from throughtime._errors import MissingDependencyError as MissingDependencyError
    from throughtime._errors import MonitorError as MonitorError
    from throughtime._errors import NoGradientError as NoGradientError
    from throughtime._errors import PictureError as PictureError
    from throughtime._errors import SchemaError as SchemaError
    from throughtime._errors import StoreError as StoreError
    from throughtime._errors import ThroughTimeError as ThroughTimeError
    from throughtime._errors import ThroughTimeWarning as ThroughTimeWarning
    from throughtime._errors import TooLargeError as TooLargeError
    from throughtime._errors import UnbuiltModelError as UnbuiltModelError
    from throughtime._errors import UnsupportedModelError as UnsupportedModelError
    from throughtime._errors import VerdictError as VerdictError
    from throughtime._monitor import Monitor as Monitor
    from throughtime._monitor import every as every
    from throughtime._monitor import logarithmic as logarithmic
    from throughtime._report import report as report
    from throughtime._store.open_run import open_run as open_run
    from throughtime.adapters.marking import mark as mark
    from throughtime.diagnosis import compare as compare
    from throughtime.diagnosis import diagnose as diagnose
    from throughtime.diagnosis import read_verdict as read_verdict
    from throughtime.render.save import save as save

_HOMES = {
    "_capture.capture": ("capture",),
    "_errors": (
        "AmbiguousLayerError",
        "ArgumentError",
        "BatchError",
        "CellError",
        "DiagnosticError",
        "FeatureError",
        "LayerNotFoundError",
        "LossError",
        "MissingDependencyError",
        "MonitorError",
        "NoGradientError",
        "PictureError",
        "SchemaError",
        "StoreError",
        "ThroughTimeError",
        "ThroughTimeWarning",
        "TooLargeError",
        "UnbuiltModelError",
        "UnsupportedModelError",
        "VerdictError",
    ),
    "_classic": (
        "get_rnn_gradients",
        "show_features_0D",
        "show_features_1D",
        "show_features_2D",
        "show_features_hist",
    ),
    "_capture.lag_matrix": ("lag_matrix",),
    "_monitor": ("Monitor", "every", "logarithmic"),
    "_capture.probe": ("Probe",),
    "_store.open_run": ("open_run",),
    "_report": ("report",),
    "render.save": ("save",),
    "_capture.summary": ("summary",),
    "_drawing.theme": ("Theme",),
    "_capture.weights": ("weights",),
    "adapters.marking": ("mark",),
    "diagnosis": ("compare", "diagnose", "read_verdict"),
}
_MODULES = ("assertions", "diagnostics", "loggers", "picture", "plots", "testing")
_REMOVED = ("Cell", "StepAdjoint", "register_cell", "unregister_cell")
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted([*_HOME_OF, *_MODULES])  # noqa: PLE0605 - the one list above is the truth
__version__ = "0.1.0.dev0"


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"throughtime.{name}")
    if name == "sinks":
        from warnings import warn  # noqa: PLC0415 - for this old name alone

        warn("tt.sinks is now called tt.loggers.", DeprecationWarning, stacklevel=2)
        return import_module("throughtime.loggers")
    if name not in _HOME_OF:
        from throughtime._errors import CellError, did_you_mean  # noqa: PLC0415 - for these errors alone

        if name in _REMOVED:  # no AttributeError: `from throughtime import` would replace its text
            raise CellError(
                f"throughtime.{name} was removed. Every recurrent cell is captured as it is; name its gates "
                "with tt.mark(value, 'forget') where it computes them."
            )
        hint = did_you_mean(name, __all__)
        raise AttributeError(f"module 'throughtime' has no attribute {name!r}.{hint}", name=name)
    value = getattr(import_module(f"throughtime.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
