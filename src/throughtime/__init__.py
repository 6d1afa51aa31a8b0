"""See what flows through time inside recurrent neural networks.

The public names, each loaded when it is first used: importing throughtime imports no framework and no
drawing library. `__init__.pyi` lists them.
"""

from typing import Any

import lazy_loader

_load, _names, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0.dev0"


def __getattr__(name: str) -> Any:
    if name in __all__:
        return _load(name)
    if name == "sinks":
        from warnings import warn  # noqa: PLC0415 - for this old name alone

        warn("tt.sinks is now called tt.loggers.", DeprecationWarning, stacklevel=2)
        return _load("loggers")
    from throughtime._errors import did_you_mean  # noqa: PLC0415 - for this error alone

    hint = did_you_mean(name, __all__)
    raise AttributeError(f"module 'throughtime' has no attribute {name!r}.{hint}", name=name)


def __dir__() -> list[str]:
    return [*_names(), "__version__"]
