"""`save_figure`: write a matplotlib figure either completely or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from matplotlib.backend_bases import FigureCanvasBase

from throughtime._errors import FeatureError


def checked_path(savepath: Any) -> Path:
    """Create the parent folder and check the suffix before drawing; the default suffix is .png.

    Raises
    ------
    FeatureError
        matplotlib cannot write such a file, or the folder cannot be created.
    """
    path = Path(savepath).expanduser()
    known = FigureCanvasBase.get_supported_filetypes()
    path = path if path.suffix else path.with_name(f"{path.name}.png")
    if path.suffix[1:].lower() not in known:
        raise FeatureError(
            f"savepath={str(savepath)!r} ends in {path.suffix!r}, which matplotlib cannot write. "
            f"Supported: {', '.join(sorted(known))}."
        )
    if path.is_dir():
        raise FeatureError(f"savepath={str(savepath)!r} is a folder. Add the name of a file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FeatureError(f"The folder of savepath={str(savepath)!r} cannot be created: {error}.") from error
    return path


def save_figure(fig: Any, path: Path) -> None:
    """Write to a temporary file and move it to `path`, so that readers never see half a file.

    Raises
    ------
    FeatureError
        The file cannot be written.
    """
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        fig.savefig(part, dpi="figure")
        part.replace(path)
    except OSError as error:
        raise FeatureError(f"savepath={str(path)!r} cannot be written: {error}.") from error
    finally:
        part.unlink(missing_ok=True)
