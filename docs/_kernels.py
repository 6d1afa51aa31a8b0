"""Kernels of notebooks that talk through files: two that start at once may be given the same free port."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path

import jupyter_client
from traitlets import CaselessStrEnum


class Kernels(jupyter_client.AsyncKernelManager):
    """Starts a kernel whose channels are sockets in a folder of its own."""

    transport = CaselessStrEnum(["ipc"], "ipc")

    def _ip_default(self) -> str:
        folder = tempfile.mkdtemp(prefix="kernel-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return str(Path(folder) / "socket")


def use() -> None:
    """Make every notebook client of this process start its kernels so."""
    jupyter_client.AsyncKernelManager = Kernels
