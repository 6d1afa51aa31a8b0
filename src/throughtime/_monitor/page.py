"""The page that follows a monitor's run; it is served when its address is first read."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from throughtime._live import Server

    from .place import Place


class ServedPage:
    """Serves the page of one run from this process.

    Parameters
    ----------
    place : Place
        Place of the run, which need not exist yet.
    """

    def __init__(self, place: Place) -> None:
        self._place, self._shown = place, place.path
        self._server: Server | None = None

    @property
    def url(self) -> str:
        """Address of the page; reading it starts the server."""
        if self._shown != self._place.path:  # another process took the folder first
            self.close()
        if self._server is None:
            from throughtime._live import Server  # noqa: PLC0415 - imports drawing libraries

            self._shown = self._place.path
            self._server = Server(self._shown)
            weakref.finalize(self, self._server.close)
        return self._server.url

    def close(self) -> None:
        """Stop the server."""
        if self._server is not None:
            self._server.close()
            self._server = None
