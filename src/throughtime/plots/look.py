"""What every picture takes beside its data: limits, scale, colours, title and size, told once."""

from __future__ import annotations

from typing import TypedDict, cast

from throughtime._arguments.rules import choice, flag, interval, number, text
from throughtime._drawing.scale import SCALES
from throughtime._errors import PictureError, did_you_mean


class Look(TypedDict, total=False):
    """Keywords of every picture of `tt.plots`; one left out, or None, is chosen from the data.

    Parameters
    ----------
    limits : (float, float)
        Ends of the scale, in the unit of the values; what lies outside is drawn as clipped. For the
        logarithmic scales magnitudes.
    share : bool
        One scale for all panels and samples, the default; with False each is divided by its own largest
        magnitude, and the label says so.
    scale : "log10", "signed_log" or "linear"
        `log10` shows magnitudes down to 2⁻²⁴ of the largest, `signed_log` both signs that way, with 0 in the
        middle. Gradients are logarithmic by default, states, gates and weights linear.
    cmap : str
        A colour map of cmcrameri ("vik", "batlow", …) or matplotlib ("bwr", "viridis", …).
    title : str
    width, height : float, in inches

    Examples
    --------
    >>> from throughtime import plots, testing
    >>> plots.heatmap(testing.decaying(), scale="signed_log", cmap="bwr", width=5).width
    5.0
    """

    limits: tuple[float, float] | None
    share: bool | None
    scale: str | None
    cmap: str | None
    title: str | None
    width: float | None
    height: float | None


_RULES = {
    "limits": interval,
    "share": flag,
    "scale": choice(*SCALES),
    "cmap": text,
    "title": text,
    "width": number(0.5, 100, "inches"),
    "height": number(0.5, 100, "inches"),
}


def checked(look: Look, *, without: tuple[str, ...] = ()) -> Look:
    """Refuse a keyword that this picture does not take, and values that none takes; leave out what is None.

    Raises
    ------
    PictureError
        The keyword and those there are; or the value.
    """
    known = [name for name in _RULES if name not in without]
    given = {name: value for name, value in look.items() if value is not None or name not in known}
    if unknown := next((name for name in given if name not in known), None):
        raise PictureError(
            f"There is no keyword {unknown!r} here. Beside its own it takes: {', '.join(known)}."
            f"{did_you_mean(unknown, known)}"
        )
    return cast("Look", {name: _RULES[name](name, value, PictureError) for name, value in given.items()})


class Size(TypedDict):
    """Width and height of a picture, in inches."""

    width: float
    height: float


class Titles(TypedDict):
    """Title and subtitle of a picture."""

    title: str
    subtitle: str


def titled(look: Look, finding: str, noun: str) -> Titles:
    """Take the title given, else the finding above the noun, else the noun."""
    if look.get("title"):
        return Titles(title=str(look["title"]), subtitle="")
    return Titles(title=finding or noun, subtitle=noun if finding else "")


def size(look: Look, width: float, height: float) -> Size:
    """Take the size given, else this one."""
    return Size(width=float(look.get("width") or width), height=float(look.get("height") or height))
