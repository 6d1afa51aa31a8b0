"""Which libraries are installed, in which versions."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def version_of(name: str) -> str | None:
    """Version of a distribution; None where it is not installed.

    Examples
    --------
    >>> version_of("no-such-library") is None
    True
    """
    try:
        return version(name)
    except PackageNotFoundError:
        return None
