"""The page that follows a monitor's run, served once somebody asks where it is."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from throughtime._live import Server

    from .place import Place


class Page:
    """Serves the page of one run from this process.

    Parameters
    ----------
    place : Place
        Of the run, which need not be there yet.
    """

    def __init__(self, place: Place) -> None:
        self._place, self._shown = place, place.path
        self._server: Server | None = None

    @property
    def url(self) -> str:
        """Address of the page; it is served from now on."""
        if self._shown != self._place.path:  # another process took its name first
            self.close()
        if self._server is None:
            from throughtime._live import Server  # noqa: PLC0415 - drawing libraries load late

            self._shown = self._place.path
            self._server = Server(self._shown)
            weakref.finalize(self, self._server.close)
        return self._server.url

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.close()
            self._server = None
