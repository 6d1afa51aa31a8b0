"""The page that follows a monitor's run, served once somebody asks where it is."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from throughtime._live import Server


class Page:
    """Serves the page of one run from this process.

    Parameters
    ----------
    store : path-like
        Of the run, which need not be there yet.
    """

    def __init__(self, store: str | os.PathLike[str]) -> None:
        self._store = store
        self._server: Server | None = None

    @property
    def url(self) -> str:
        """Address of the page; it is served from now on."""
        if self._server is None:
            from throughtime._live import Server  # noqa: PLC0415 - drawing libraries load late

            self._server = Server(self._store)
            weakref.finalize(self, self._server.close)
        return self._server.url

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.close()
            self._server = None
