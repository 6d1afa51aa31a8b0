"""Writes files and folders at once: a reader sees what was there before, or all that is new."""

import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def put(file: str, content: bytes, *, durable: bool = False) -> None:
    """Write a file that has one writer.

    A record writes about fifty files: paths are plain text here, which halves the time.
    """
    beside = f"{file}.tmp"
    try:
        try:
            _write_bytes(beside, content, durable)
        except FileNotFoundError:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            _write_bytes(beside, content, durable)
        os.replace(beside, file)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _write_bytes(file: str, content: bytes, durable: bool) -> None:
    with open(file, "wb") as out:
        out.write(content)
        if durable:
            out.flush()
            os.fsync(out.fileno())


def replace_file(file: Path, write: Callable[[Path], object]) -> None:
    """Have a file written beside another, if there is one, which it then replaces; several may do so at once.

    Its name begins with a dot, which readers of folders ignore, and keeps the ending, which names the format.
    """
    beside = file.with_name(f".{file.stem}.{secrets.token_hex(4)}{file.suffix}")
    try:
        write(beside)
        beside.replace(file)
    finally:
        with suppress(OSError):
            beside.unlink()


def replace_folder(folder: Path, beside: Path, replaced: Path, write: Callable[[Path], object]) -> None:
    """Write a folder beside another, if there is one, which it then replaces in two moves."""
    shutil.rmtree(beside, ignore_errors=True)
    try:
        write(beside)
        if folder.exists():
            folder.rename(replaced)
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)  # a full disk needs its space
        raise
    shutil.rmtree(replaced, ignore_errors=True)
