"""`save`: writes a plot completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from throughtime._common.atomic import replace_file
from throughtime._errors import PictureError, ThroughTimeError
from throughtime._inputs import takes
from throughtime._inputs.rules import instance
from throughtime.picture import Picture
from throughtime.picture._drawing.theme import Theme

STATIC = ("png", "svg", "pdf")
SUFFIXES = (*STATIC, "html")


@takes(PictureError, theme=instance("Theme", of="tt.Theme.for_paper()"))
def save(picture: Picture, path: str | os.PathLike[str], *, theme: Theme | None = None) -> Path:
    """Write a plot: png, svg and pdf with matplotlib, html as one interactive page that works offline.

    An existing file is replaced at once; a reader sees either the old or the new file.

    Parameters
    ----------
    picture : Picture
        Returned by `tt.plots`, or custom.
    path : str or path
        The ending selects the format; the default is .png. The folder is created.
    theme : Theme, optional
        Fonts, sizes and colours, such as `tt.Theme.for_paper()`.

    Returns
    -------
    Path of the file

    Raises
    ------
    PictureError
        Not a `Picture`, an unknown ending, a theme that is too narrow, or a file that cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from throughtime import plots, testing
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(plots.heatmap(testing.decaying()), f"{folder}/gradient.svg").name
    'gradient.svg'
    """
    if not isinstance(picture, Picture):
        raise PictureError(
            f"save takes a Picture as tt.plots.heatmap(tree) returns it, got {type(picture).__name__}."
        )
    target = checked_path(path, SUFFIXES)
    write(target, _content(picture, target.suffix[1:].lower(), theme or Theme()))
    return target


def checked_path(
    path: Any, suffixes: Iterable[str], *, name: str = "path", error: type[ThroughTimeError] = PictureError
) -> Path:
    """Check the ending and create the folder before anything is drawn; without an ending, add the first."""
    suffixes = tuple(suffixes)
    try:
        target = Path(path).expanduser()
    except TypeError as problem:
        raise error(f"{name} is a {type(path).__name__}; expected a str or a pathlib.Path.") from problem
    if target.is_dir():
        raise error(f"{name}={str(path)!r} is a folder. Add the name of a file.")
    target = target if target.suffix else target.with_name(f"{target.name}.{suffixes[0]}")
    if target.suffix[1:].lower() not in suffixes:
        endings = ", ".join(f".{each}" for each in suffixes)
        raise error(f"{name}={str(path)!r} ends in {target.suffix!r}. It can end in: {endings}.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise error(f"The folder of {name}={str(path)!r} cannot be created: {problem}.") from problem
    return target


def write(
    target: Path, content: bytes | Callable[[Path], Any], *, error: type[ThroughTimeError] = PictureError
) -> None:
    """Write bytes, or call a function that writes, beside the file; then replace the file at once."""
    try:
        replace_file(target, content if callable(content) else partial(Path.write_bytes, data=content))
    except OSError as problem:
        raise error(f"{str(target)!r} cannot be written: {problem}.") from problem


def _content(picture: Picture, kind: str, theme: Theme) -> bytes:
    if kind in STATIC:
        from throughtime.picture._render.matplotlib import encoded  # noqa: PLC0415 - loads late

        return encoded(picture, theme, kind)
    from throughtime.picture._render.page import page  # noqa: PLC0415 - drawing libraries load late

    return page(picture, theme).encode()
