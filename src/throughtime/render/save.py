"""`save`: a picture as a file that is whole or not there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from throughtime._arguments import takes
from throughtime._arguments.rules import instance
from throughtime._drawing.theme import Theme
from throughtime._errors import PictureError
from throughtime.picture import Picture

STATIC = ("png", "svg", "pdf")
SUFFIXES = (*STATIC, "html")


@takes(PictureError, theme=instance("Theme", of="tt.Theme.for_paper()"))
def save(picture: Picture, path: str | os.PathLike[str], *, theme: Theme | None = None) -> Path:
    """Write a picture: png, svg and pdf with matplotlib, html as one interactive page that works offline.

    An existing file is replaced at once; whoever reads meanwhile sees the old one or the new one.

    Parameters
    ----------
    picture : Picture
        From `tt.plots`, or made by hand.
    path : str or path
        Its ending says what is written; none means .png. The folder is made if it is not there.
    theme : Theme, optional
        Fonts, sizes and colours, such as `tt.Theme.for_paper()`.

    Returns
    -------
    Path of the file

    Raises
    ------
    PictureError
        No picture, an ending that nothing is written for, a theme too narrow for the picture, or a file that
        cannot be written.

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


def checked_path(path: Any, suffixes: tuple[str, ...]) -> Path:
    """Check the ending and make the folder, before anything is drawn; without an ending, add the first.

    Raises
    ------
    PictureError
        No path, an ending that is not listed, or a folder that cannot be created.
    """
    try:
        target = Path(path).expanduser()
    except TypeError as error:
        raise PictureError(f"path is a {type(path).__name__}; expected a str or a pathlib.Path.") from error
    if target.is_dir():
        raise PictureError(f"path={str(path)!r} is a folder. Add the name of a file.")
    target = target if target.suffix else target.with_name(f"{target.name}.{suffixes[0]}")
    if target.suffix[1:].lower() not in suffixes:
        endings = ", ".join(f".{each}" for each in suffixes)
        raise PictureError(f"path={str(path)!r} ends in {target.suffix!r}. It can end in: {endings}.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PictureError(f"The folder of path={str(path)!r} cannot be created: {error}.") from error
    return target


def write(target: Path, content: bytes) -> None:
    """Write beside the file first and move it there.

    Raises
    ------
    PictureError
        The file cannot be written; nothing of it is left.
    """
    part = target.with_name(f".{target.stem}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(target)
    except OSError as error:
        raise PictureError(f"{str(target)!r} cannot be written: {error}.") from error
    finally:
        part.unlink(missing_ok=True)


def _content(picture: Picture, kind: str, theme: Theme) -> bytes:
    if kind in STATIC:
        from throughtime.render.matplotlib import encoded  # noqa: PLC0415 - drawing libraries load late

        return encoded(picture, theme, kind)
    from throughtime.render.page import page  # noqa: PLC0415 - drawing libraries load late

    return page(picture, theme).encode()
