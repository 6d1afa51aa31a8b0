"""Text of titles and ticks: short numbers, counts with their nouns, wrapped lines."""

from __future__ import annotations

from collections.abc import Sequence

from throughtime._classic.data import Features, nonfinite_note


def title_parts(features: Features, *notes: str, channel: str = "channel") -> list[str]:
    """Return the parts of a title: the data, their layer, their sizes, and the values that are not finite."""
    samples, steps, channels = features.values.shape
    shown = f"first {steps} of {features.all_steps} timesteps" if features.all_steps > steps else ""
    return [
        features.name,
        features.layer,
        counted(samples, "sample") if samples > 1 or features.is_labelled else "",
        counted(channels, channel),
        (shown or counted(steps, "timestep")) if features.has_time else "",
        *notes,
        nonfinite_note(features.values),
    ]


def zero_note(features: Features) -> str:
    """Return a note if all values are 0, which limits cannot show."""
    return "" if features.values.any() else "all values are 0"


def short(value: float, digits: int = 2) -> str:
    """Format a number briefly, for a tick.

    Examples
    --------
    >>> short(0.0012), short(-25), short(0), short(1.25e-07)
    ('1.2e-3', '-25', '0', '1.2e-7')
    """
    text = f"{value:.{digits}g}"
    if "e" not in text and value != 0 and abs(value) < 0.01:
        text = f"{value:.{digits - 1}e}"
    if "e" not in text:
        return text
    mantissa, exponent = text.split("e")
    if abs(value) >= 1 and int(exponent) < 5:
        return f"{float(text):.0f}"
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}"


def counted(count: int, noun: str) -> str:
    """Format a count with its noun.

    Examples
    --------
    >>> counted(1, "sample"), counted(6, "channel")
    ('1 sample', '6 channels')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def wrapped(parts: Sequence[str], width: float, fontsize: float) -> str:
    """Join a title's parts with dots, in lines of at most `width` inches.

    Examples
    --------
    >>> wrapped(["dL/dh", "16 samples", ""], width=8, fontsize=14)
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
