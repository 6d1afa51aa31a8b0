"""The page's server answers this machine's own names only, and leaves nothing behind when it is closed."""

from __future__ import annotations

import gc
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.monitor.test_monitor import BATCH, MSE

import throughtime as tt
from throughtime._pages.live import Server

PLACES = ("/", "/static/js/bokeh.min.js", "/autoload.js?bokeh-autoload-element=x", "/metadata", "/nowhere")
HANDSHAKE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    started = Server(tmp_path / "run.zarr")
    yield started
    started.close()


def status(server: Server, place: str, **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request(
        "GET", place, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    found = connection.getresponse().status
    connection.close()
    return found


@pytest.mark.parametrize("place", PLACES)
def test_a_foreign_host_is_refused_everywhere(server: Server, place: str) -> None:
    for host in (
        "evil.example",
        f"evil.example:{server.port}",
        f"127.0.0.1.evil.example:{server.port}",
        "127.0.0.1",
    ):
        assert status(server, place, Host=host) == 403


@pytest.mark.parametrize("place", PLACES)
def test_a_foreign_origin_is_refused_everywhere(server: Server, place: str) -> None:
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", f"https://127.0.0.1:{server.port}"):
        assert status(server, place, Origin=origin) == 403


def test_this_machine_is_served(server: Server) -> None:
    assert status(server, "/") == 200
    assert status(server, "/static/js/bokeh.min.js") == 200
    assert (
        status(server, "/", Host=f"localhost:{server.port}", Origin=f"http://localhost:{server.port}") == 200
    )
    assert status(server, "/nowhere") == 404


def test_a_foreign_socket_is_refused(server: Server) -> None:
    for foreign in ({"Origin": "http://evil.example"}, {"Host": f"evil.example:{server.port}"}):
        assert status(server, "/ws", **HANDSHAKE, **foreign) == 403


def test_other_addresses_are_not_listened_to(server: Server) -> None:
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", server.port), 5):
        pass


def test_closing_leaves_nothing(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    server = Server(tmp_path / "run.zarr")
    assert status(server, "/") == 200
    server.close()
    server.close()
    assert set(threading.enumerate()) <= before
    with pytest.raises(ConnectionRefusedError):
        status(server, "/")
    assert not (tmp_path / "run.zarr").exists()


def test_a_monitor_serves_when_asked_and_closes(tmp_path: Path) -> None:
    monitor = tt.Monitor(tmp_path / "run.zarr", BATCH, loss=MSE)
    before = set(threading.enumerate())
    url = monitor.url
    assert monitor.url == url
    monitor.close()
    assert set(threading.enumerate()) <= before
    assert monitor.url.startswith("http://127.0.0.1:")
    del monitor
    gc.collect()
    assert set(threading.enumerate()) <= before


def test_a_process_ends_with_its_page_open(tmp_path: Path) -> None:
    program = f"""
import numpy as np, throughtime as tt
print(tt.Monitor({str(tmp_path / "run.zarr")!r}, (np.ones(1), np.ones(1))).url)
monitor = tt.Monitor({str(tmp_path / "run.zarr")!r}, (np.ones(1), np.ones(1)))
print(monitor.url)
"""
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True
    )
    assert finished.stdout.count("http://127.0.0.1:") == 2
    assert finished.stderr == ""


def test_a_port_that_is_taken(server: Server, tmp_path: Path) -> None:
    with pytest.raises(tt.MonitorError, match=f"Port {server.port} .* any free one"):
        Server(tmp_path / "run.zarr", server.port)
    with pytest.raises(tt.MonitorError, match="Port 99999"):
        Server(tmp_path / "run.zarr", 99_999)


def test_a_path_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(tt.StoreError, match="is a file"):
        Server(tmp_path / "file")


def test_the_command_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "throughtime._cli", "watch", str(tmp_path / "run.zarr"), "--no-open"]
    environment = {**os.environ, "COLUMNS": "300", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        line = process.stdout.readline()
        port = int(line.rpartition("127.0.0.1:")[2].partition("/")[0])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0
