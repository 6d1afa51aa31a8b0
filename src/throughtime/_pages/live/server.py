"""Serves the page of a run, to this machine only, from a separate thread.

A request under another name than this machine's, or from another page, gets 403: a page elsewhere cannot
read a run through a browser on this machine.
"""

import asyncio
import logging
import os
import socket
import threading
from pathlib import Path
from typing import Any

from bokeh.application import Application
from bokeh.application.handlers import FunctionHandler
from bokeh.server.server import BaseServer
from bokeh.server.tornado import BokehTornado
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import IOLoop
from tornado.routing import AnyMatches, Matcher, Rule, RuleRouter
from tornado.web import Application as TornadoApplication
from tornado.web import HTTPError, RequestHandler

from throughtime._errors import MonitorError, StoreError
from throughtime._pages.live.page import Page

ADDRESS = "127.0.0.1"
_FORGET_AFTER = 10_000  # milliseconds after which a page that was closed is forgotten
_SECONDS_TO_CLOSE = 10.0
_LOG_OF_BOKEH = logging.getLogger("bokeh.server.views.ws")


class Server:
    """A page at `url` that follows a run, which need not exist yet; port 0 takes any free one."""

    def __init__(self, path: str | os.PathLike[str], port: int = 0) -> None:
        self._path = Path(path)
        if self._path.is_file():
            raise StoreError(f"{self._path} is a file; a run is a folder. Give another path.")
        self._socket = _open_socket(port)
        self._socket.setblocking(False)
        self.port = int(self._socket.getsockname()[1])
        self.url = f"http://{ADDRESS}:{self.port}/"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Event | None = None
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="throughtime page", daemon=True)
        self._thread.start()
        self._is_ready.wait()

    def wait(self) -> None:
        """Serve until the process is interrupted."""
        try:
            while self._thread.is_alive():
                self._thread.join(0.5)
        except KeyboardInterrupt:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Close the page, its connections, its port and its thread; a second time does nothing."""
        if self._loop is not None and self._closing is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join(_SECONDS_TO_CLOSE)

    def _run(self) -> None:
        filtered = _WithoutClosing()
        _LOG_OF_BOKEH.addFilter(filtered)
        try:
            asyncio.run(self._serve())
        finally:
            _LOG_OF_BOKEH.removeFilter(filtered)
            self._is_ready.set()

    async def _serve(self) -> None:
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        names = [f"{name}:{self.port}" for name in (ADDRESS, "localhost")]
        bokeh = BokehTornado(
            {"/": Application(FunctionHandler(self._open))},
            extra_websocket_origins=names,
            check_unused_sessions_milliseconds=_FORGET_AFTER // 2,
            unused_session_lifetime_milliseconds=_FORGET_AFTER,
        )
        forbidden = TornadoApplication([(r".*", _Forbidden)], log_function=lambda handler: None)
        http = HTTPServer(RuleRouter([Rule(_FromThisMachine(names), bokeh), Rule(AnyMatches(), forbidden)]))
        server = BaseServer(IOLoop.current(), bokeh, http)
        http.add_socket(self._socket)
        server.start()
        self._is_ready.set()
        await self._closing.wait()
        server.stop()
        await http.close_all_connections()

    def _open(self, document: Any) -> None:
        Page(document, self._path)


def _open_socket(port: int) -> socket.socket:
    try:
        if not 0 <= port < 2**16:
            raise OSError("the largest port is 65535")
        return socket.create_server((ADDRESS, port))
    except OSError as error:
        raise MonitorError(
            f"Port {port} is not available ({error}). Pass another port, or 0 for any free one."
        ) from None


class _FromThisMachine(Matcher):
    """Requests that name this machine, and come from a page of this server or from none."""

    def __init__(self, names: list[str]) -> None:
        self._names = frozenset(names)
        self._origins = frozenset(f"http://{name}" for name in names)

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        origin = request.headers.get("Origin")
        is_ours = request.host.lower() in self._names and (origin is None or origin in self._origins)
        return {} if is_ours else None


class _WithoutClosing(logging.Filter):
    """Drops the message that a reader has closed the page."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "connection was closed" not in record.getMessage()


class _Forbidden(RequestHandler):
    """Answers 403 to everything."""

    def prepare(self) -> None:
        raise HTTPError(403)
