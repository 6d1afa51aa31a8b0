"""The keywords that every plot takes besides its data: limits, scale, colours, title and size."""

from dataclasses import replace
from typing import TypedDict, cast

from throughtime._errors import PictureError, did_you_mean
from throughtime._inputs.rules import choice, flag, interval, number, text
from throughtime.picture import Picture
from throughtime.picture._drawing.scale import SCALES


class Look(TypedDict, total=False):
    """Keywords of every plot of `tt.plots`; the default, or None, is chosen from the data.

    Parameters
    ----------
    limits : (float, float)
        Ends of the scale, in the unit of the values, for logarithmic scales of their magnitudes; values
        outside are drawn as clipped.
    share : bool
        One scale for all panels and samples, the default; with False each is divided by its largest
        magnitude, as the label shows.
    scale : "log10", "signed_log" or "linear"
        `log10` shows magnitudes down to 2⁻²⁴ of the largest, `signed_log` both signs with 0 in the middle. By
        default gradients are logarithmic, and states, gates and weights linear.
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
    """Refuse unknown keywords and values; drop those that are None."""
    known = [name for name in _RULES if name not in without]
    given = {name: value for name, value in look.items() if value is not None or name not in known}
    if unknown := next((name for name in given if name not in known), None):
        raise PictureError(
            f"There is no keyword {unknown!r} here. This plot takes: {', '.join(known)}."
            f"{did_you_mean(unknown, known)}"
        )
    return cast("Look", {name: _RULES[name](name, value, PictureError) for name, value in given.items()})


def finished(picture: Picture, look: Look, titles: tuple[str, str], size: tuple[float, float]) -> Picture:
    """Add title and size to a plot: those of the look, or else these.

    `titles` are a sentence, which may be empty, and the noun below it.
    """
    sentence, noun = titles
    if look.get("title"):
        sentence, noun = str(look["title"]), ""
    width, height = (float(look.get("width") or size[0]), float(look.get("height") or size[1]))
    title, subtitle = (sentence, noun) if sentence else (noun, "")
    return replace(picture, title=title, subtitle=subtitle, width=width, height=height)


def in_columns(
    picture: Picture, look: Look, titles: tuple[str, str], height: float, more: float = 0.0
) -> Picture:
    """Finish a plot with one panel, or with two in a row; `height` is that of a row, `more` is added once."""
    number = len(picture.panels)
    size = 8.0 if number == 1 else 11.0, more + height * -(-number // 2)
    return finished(replace(picture, columns=min(2, number)), look, titles, size)
