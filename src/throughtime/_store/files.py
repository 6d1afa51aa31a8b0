"""The files of a run, in a folder or a zip. Only regular files inside of it are read."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo, is_zipfile
from zlib import error as ZlibError  # noqa: N812

from throughtime._common.atomic import put

from .codecs import DamageError
from .schema import SUMS_KEY

_MOST_FILES = 2**22
_MOST_INFLATED, _MOST_RATIO = 2**28, 200  # bytes up to which a zip may have any ratio; largest ratio beyond
# Windows has neither these flags nor such links and fifos.
_FLAGS = (
    os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
)


class Files(Protocol):
    """Names are relative to the run, with slashes."""

    def read(self, name: str, most: int) -> bytes | None:
        """Read a file of at most `most` bytes; None if it does not exist."""

    def sizes(self, folder: str) -> Iterator[int]:
        """Yield the sizes of all files below a folder."""

    def are_replaced(self) -> bool:
        """Whether other files may lie where these were opened."""


def files_at(path: Path) -> Files | None:
    """Open a folder or zip; None if the path is neither. A broken or inflated zip raises DamageError."""
    if path.is_dir():
        return Folder(path)
    return Zip(path) if path.is_file() and is_zipfile(path) else None


class Folder:
    """Files of a folder; the path of the folder may contain links."""

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.realpath(path))
        self._opened = self._identity()

    def read(self, name: str, most: int) -> bytes | None:
        file = f"{self.path}/{name}"
        try:
            handle = os.open(file, _FLAGS)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise DamageError(f"{name} cannot be opened as a regular file: {error.strerror}") from None
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or os.path.realpath(file) != os.path.normpath(file):
                raise DamageError(f"{name} is not a regular file of the run's folder")
            if found.st_size > most:
                raise DamageError(f"{name} has {found.st_size:,} bytes; at most {most:,} are possible")
            with open(handle, "rb", buffering=0, closefd=False) as source:
                return source.read(most)
        finally:
            os.close(handle)

    def sizes(self, folder: str) -> Iterator[int]:
        for at, _, names in os.walk(self.path / folder):
            yield from (os.lstat(f"{at}/{name}").st_size for name in names)

    def are_replaced(self) -> bool:
        opened, now = self._opened, self._identity()
        return opened[0] != now[0] or opened[1] not in (None, now[1])

    def _identity(self) -> list[tuple[int, ...] | None]:
        """Identify the folder, and the one of its checksums, which is created with the first step."""
        found: list[tuple[int, ...] | None] = []
        for name in ("", SUMS_KEY):
            try:
                at = os.stat(f"{self.path}/{name}")
            except OSError:
                found.append(None)
            else:  # a system gives the number of a removed folder to a new one, at another time
                found.append((at.st_dev, at.st_ino, at.st_mtime_ns if name else 0))
        return found

    def make_own(self) -> None:
        """Make a folder safe for a writer, which writes into files and truncates them.

        Links, fifos and devices raise DamageError. A file with several hard links, as some backups create
        them, is replaced by a copy.
        """
        shared = []
        for at, folders, names in os.walk(self.path):
            for name in (*folders, *names):
                file = f"{at}/{name}"
                found = os.lstat(file)
                if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
                    inside = os.path.relpath(file, self.path)
                    raise DamageError(f"{inside} is neither a regular file nor a folder")
                if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
                    shared.append(file)
        for file in shared:
            put(file, Path(file).read_bytes())


class Zip:
    """Files of a zip, whose directory is checked before anything is unpacked."""

    def __init__(self, path: Path) -> None:
        try:
            self._archive = ZipFile(path)
        except (BadZipFile, OSError, ValueError) as error:
            raise DamageError(f"the zip is broken: {error}") from None
        entries = self._archive.infolist()
        self._entries = {each.filename: each for each in entries}
        if len(self._entries) < len(entries) or len(entries) > _MOST_FILES:
            raise DamageError(f"the zip has a file twice, or more than {_MOST_FILES:,} files")
        if strange := next(filter(_is_strange, entries), None):
            raise DamageError(
                f"{strange.filename[:200]!r} in the zip is a link, encrypted or compressed in another way"
            )
        inflated = sum(each.file_size for each in entries)
        if inflated > max(_MOST_INFLATED, _MOST_RATIO * path.stat().st_size):
            raise DamageError(f"the zip has {path.stat().st_size:,} bytes and would unpack to {inflated:,}")

    def read(self, name: str, most: int) -> bytes | None:
        entry = self._entries.get(name)
        if entry is None:
            return None
        if entry.file_size > most:
            raise DamageError(f"{name} has {entry.file_size:,} bytes; at most {most:,} are possible")
        try:
            return self._archive.read(entry)
        except (BadZipFile, ZlibError, OSError, ValueError, EOFError, NotImplementedError) as error:
            raise DamageError(f"{name} cannot be unpacked: {error}") from None

    def has(self, name: str) -> bool:
        return name in self._entries

    def are_replaced(self) -> bool:
        return False  # the file stays open

    def sizes(self, folder: str) -> Iterator[int]:
        yield from (each.file_size for name, each in self._entries.items() if name.startswith(f"{folder}/"))


def _is_strange(entry: ZipInfo) -> bool:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    is_encrypted = bool(entry.flag_bits & 1)
    return (
        kind not in (0, stat.S_IFREG, stat.S_IFDIR)
        or is_encrypted
        or entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED)
    )
