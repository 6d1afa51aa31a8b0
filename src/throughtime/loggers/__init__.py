"""Loggers to which a monitor writes its records. Each is one file with one method, `write(record)`.

A `Record` has `step`, `numbers` in two groups (`throughtime/<layer>/<direction>/…` has horizon, reach,
saturation and gradient norm; `detail/<layer>/<direction>/<quantity>` has all else), `histograms` and
`images`, which are computed when a logger reads them, and the whole `capture`. A custom logger is any object
with that method; it may also have `begin()` and `close()`.
"""

from typing import Any

import lazy_loader

from throughtime._errors import did_you_mean

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        hint = did_you_mean(name, __all__) or f" It has {', '.join(__all__)}."
        raise AttributeError(f"module 'throughtime.loggers' has no attribute {name!r}.{hint}", name=name)
    return _load(name)
