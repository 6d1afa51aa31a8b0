"""The look of all classic plots: ticks, borders, limits, labels, titles, and marks of NaN and ±∞."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from throughtime.compat._classic.data import Features, nonfinite_note
from throughtime.picture._drawing.theme import Theme
from throughtime.picture._render.matplotlib_marks import mark_nonfinite

QUIET = "#b8b8b8"
INK = Theme.ink


def value_limits(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return limits that include all finite values and zero; with both signs, zero is in the middle.

    >>> [float(round(limit, 9)) for limit in value_limits(np.array([-1.0, 2.0]))]
    [-2.16, 2.16]
    """
    finite = values[np.isfinite(values)]
    low, high = finite.min(initial=0.0), finite.max(initial=0.0)
    if low == high == 0:
        return -1.0, 1.0
    if low < 0 < high:
        low, high = -max(-low, high), max(-low, high)
    margin = 0.04 * (high - low)
    return float(low - margin), float(high + margin)


def dress(
    ax: Axes, frame: Any, *, bottom: bool = True, left: bool = True, size: float = 9, edges: bool = True
) -> None:
    """Draw faint borders, and tick labels only for panels at the edge of the grid."""
    for spine in ax.spines.values():
        spine.set(visible=edges and frame.show_borders, color=QUIET, linewidth=0.8)
    show_x, show_y = frame.show_xy_ticks[0] and bottom, frame.show_xy_ticks[1] and left
    ax.tick_params(
        axis="both", which="both", labelsize=size, length=2.5, width=0.6, pad=2, color=QUIET, labelcolor=INK
    )
    ax.tick_params(axis="x", which="both", bottom=show_x, labelbottom=show_x, top=False)
    ax.tick_params(axis="y", which="both", left=show_y, labelleft=show_y, right=False)


class InnerLocator(MaxNLocator):
    """Few ticks, and none so close to the end of an axis that labels of neighbours overlap."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        places = np.asarray(super().tick_values(vmin, vmax))
        margin = 0.1 * abs(vmax - vmin)
        low, high = min(vmin, vmax) + margin, max(vmin, vmax) - margin
        inner = places[(places == 0) | ((places >= low) & (places <= high))]
        return inner if len(inner) else places


def tick_text(value: float, _position: int | None = None) -> str:
    """Format a tick's value. It is a module-level function so that figures can be pickled."""
    return shorten(value)


def value_ticks(axis: Axis, count: int = 4) -> None:
    """Label an axis of values with about three short numbers."""
    axis.set_major_locator(InnerLocator(count, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(FuncFormatter(tick_text))


def index_ticks(axis: Axis, count: int) -> None:
    """Label an axis of steps, samples or channels with whole numbers."""
    axis.set_major_locator(MaxNLocator(count, integer=True, min_n_ticks=1))


def corner_label(ax: Axes, text: str, *, size: float = 9, right: bool = False) -> None:
    """Write a short text in an upper corner, above the drawing."""
    if text:
        ax.text(
            0.98 if right else 0.02,
            0.96,
            text,
            transform=ax.transAxes,
            ha="right" if right else "left",
            va="top",
            fontsize=size,
            color=INK,
            zorder=6,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.2},
        )


def draw_nonfinite(
    ax: Axes, kind: str, x: NDArray[np.float64], y: NDArray[np.float64], size: float = 26
) -> None:
    """Mark values that are not finite, with the marks of `tt.plots`."""
    mark_nonfinite(ax, kind, x, y, size=size).set_label("not finite")


def title_parts(features: Features, *notes: str, channel: str = "channel") -> list[str]:
    """Return the parts of a title: the data, their layer, their sizes, and the values that are not finite."""
    samples, steps, channels = features.values.shape
    shown = f"first {steps} of {features.all_steps} timesteps" if features.all_steps > steps else ""
    return [
        features.name,
        features.layer,
        count_noun(samples, "sample") if samples > 1 or features.is_labelled else "",
        count_noun(channels, channel),
        (shown or count_noun(steps, "timestep")) if features.has_time else "",
        *notes,
        nonfinite_note(features.values),
    ]


def zero_note(features: Features) -> str:
    """Return a note if all values are 0, which limits cannot show."""
    return "" if features.values.any() else "all values are 0"


def shorten(value: float, digits: int = 2) -> str:
    """Format a number briefly, for a tick.

    >>> shorten(0.0012), shorten(0.00999999), shorten(-25), shorten(0), shorten(1.25e-07)
    ('1.2e-3', '0.01', '-25', '0', '1.2e-7')
    """
    text = f"{value:.{digits}g}"
    if "e" not in text and value != 0 and abs(float(text)) < 0.01:
        text = f"{value:.{digits - 1}e}"
    if "e" not in text:
        return text
    mantissa, exponent = text.split("e")
    if abs(value) >= 1 and int(exponent) < 5:
        return f"{float(text):.0f}"
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}"


def count_noun(count: int, noun: str) -> str:
    """Format a count with its noun.

    >>> count_noun(1, "sample"), count_noun(6, "channel")
    ('1 sample', '6 channels')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def wrap(parts: Sequence[str], width: float, fontsize: float) -> str:
    """Join a title's parts with dots, in lines of at most `width` inches.

    >>> wrap(["dL/dh", "16 samples", ""], width=8, fontsize=14)
    'dL/dh · 16 samples'
    """
    fitting = max(20, int(width * 72 / (0.58 * fontsize)))
    lines: list[str] = []
    for part in filter(None, parts):
        joined = f"{lines[-1]} · {part}" if lines else part
        if lines and len(joined) <= fitting:
            lines[-1] = joined
        else:
            lines.append(part)
    return "\n".join(lines)
