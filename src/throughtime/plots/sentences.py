"""Describes what the numbers of a plot show: the titles of `tt.plots`.

Each function reads the arrays that are drawn and returns the end of a sentence, or an empty string;
`sentence` adds the subject.
"""

from collections.abc import Iterable
from itertools import takewhile

import numpy as np
import xarray as xr

from throughtime.diagnostics.lags import log_norm
from throughtime.diagnostics.thresholds import REACHES, ROUNDING
from throughtime.picture._drawing.scale import Array, number
from throughtime.plots.data import Source, count, only_valid, parts, subject

SHARE = 0.9
SAME = "stays about the same"
MOST_NAMED = 3  # layers or gates that a title names


def sentence(subject: str, clauses: Iterable[tuple[str, str]]) -> str:
    """Join what is true of each part, such as a direction; empty if all are.

    >>> sentence("Gradient of rnn", [("forward", "reaches 9 steps"), ("backward", "reaches 3 steps")])
    'Gradient of rnn reaches 9 steps (forward); 3 steps (backward)'
    >>> sentence("Gradient of rnn", [("", "fades")])
    'Gradient of rnn fades'
    """
    known = [(name, words) for name, words in clauses if words]
    if not known:
        return ""
    if len({words for _, words in known}) == 1:
        return f"{subject} {known[0][1]}"
    columns = zip(*(words.split() for _, words in known), strict=False)
    shared = len([*takewhile(lambda each: len({*each}) == 1, columns)])
    rest = [
        f"{' '.join(words.split()[shared if place else 0 :])} ({name})"
        for place, (name, words) in enumerate(known)
    ]
    return f"{subject} {'; '.join(rest)}"


def named(names: list[str]) -> str:
    """List a few names, and count the others.

    >>> named(["a", "b"]), named(list("abcde"))
    ('a, b', 'a, b, c and 2 more')
    """
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def percent(share: float) -> str:
    """Format a share with at most two digits.

    >>> percent(0.234), percent(0.01), percent(0.004), percent(0.9999), percent(1e-9)
    ('23 %', '1 %', '0.4 %', '>99 %', '<0.1 %')
    """
    if 0.99 < share < 1:
        return ">99 %"
    if 0 < share < 0.001:
        return "<0.1 %"
    return f"{100 * share:.0f} %" if share >= 0.01 or share == 0 else f"{100 * share:.1g} %"


def reach(ratios: Array, threshold: float = REACHES) -> str:
    """Find the last lag at which R(k) reaches a threshold, and R at the end of the window.

    >>> reach(np.array([1.0, 0.1, 0.02, 0.004])), reach(np.array([1.0, 0.5, 0.25]))
    ('falls below 1 % after 2 steps', 'reaches all 2 steps back, R(2) = 0.25')
    """
    known = np.flatnonzero(np.isfinite(ratios))
    if known.size < 2:
        return ""
    reached = np.flatnonzero(np.nan_to_num(ratios, nan=0.0, posinf=0.0) >= threshold * (1 - ROUNDING))
    last, longest = int(reached[-1]) if reached.size else 0, int(known[-1])
    if last < longest:
        return f"falls below {percent(threshold)} after {count(last, 'step')}"
    steps = f"all {longest} steps" if longest > 1 else "the one step"
    return f"reaches {steps} back, R({longest}) = {number(float(ratios[longest]))}"


def within(sizes: Array, share: float = SHARE) -> str:
    """Find the shortest run of timesteps that contains a share of the sizes (sample, time).

    Every sample has the same weight; masked steps are NaN.

    >>> within(np.array([[0.0, 0.0, 0.05, 0.95]])), within(np.zeros((2, 3)))
    ('lies in 1 of 4 timesteps, 3', '')
    """
    sizes = np.where(np.isfinite(sizes), sizes, 0.0).astype(np.float64)
    largest = sizes.max(axis=1, keepdims=True, initial=0.0)
    shares = sizes / np.where(largest > 0, largest, 1.0)
    totals = shares.sum(axis=1, keepdims=True)
    if not (totals > 0).any() or sizes.shape[1] < 2:
        return ""
    mean = (shares / np.where(totals > 0, totals, 1.0))[totals[:, 0] > 0].mean(axis=0)
    summed = np.concatenate([[0.0], np.cumsum(mean)])
    ends = np.searchsorted(summed, summed[:-1] + share - ROUNDING)
    fits = ends < len(summed)
    lengths = np.where(fits, ends - np.arange(len(ends)), len(summed))
    start = int(np.argmin(lengths))
    last = start + int(lengths[start]) - 1
    place = f"{start}" if start == last else f"{start} to {last}"
    return f"lies in {last - start + 1} of {len(mean)} timesteps, {place}"


def broken(values: Array) -> str:
    """Count values that are not finite, or find that all are 0; time is the last axis.

    >>> broken(np.array([[1.0, np.nan]])), broken(np.zeros(3)), broken(np.ones(3))
    ('is NaN or infinite in 50 % of its values, at timestep 1', 'is exactly 0 everywhere', '')
    >>> broken(np.array([np.inf, 1.0, np.nan, 1.0]))
    'is NaN or infinite in 50 % of its values, at 2 of 4 timesteps, 0 to 2'
    """
    wrong = ~np.isfinite(values)
    if wrong.any():
        steps = np.flatnonzero(wrong.reshape(-1, values.shape[-1]).any(axis=0))
        several = f"{steps.size} of {values.shape[-1]} timesteps, {steps[0]} to {steps[-1]}"
        place = several if steps.size > 1 else f"timestep {steps[0]}"
        return f"is NaN or infinite in {percent(float(wrong.mean()))} of its values, at {place}"
    return "" if values.any() or not values.size else "is exactly 0 everywhere"


def undrawn(*sources: Source) -> str:
    """Describe what curves on a logarithmic scale leave out: values that are not finite, or all 0."""
    every = [only_valid(source, 0.0).values for source in sources]
    number = sum(int((~np.isfinite(values)).sum()) for values in every)
    if number:
        return f"{number} NaN or ∞ not drawn"
    return "" if not every or any(values.any() for values in every) else "exactly 0 everywhere"


def change(first: float, last: float) -> str:
    """Compare the ends of a curve over training.

    >>> change(0.01, 1.0), change(1.0, 0.5), change(2.0, 2.1), change(0.0, 1.0)
    ('grows 100-fold', 'falls to 50 %', 'stays about the same', '')
    """
    if not (np.isfinite([first, last]).all() and first > 0 and last > 0):
        return ""
    ratio = last / first
    if 0.8 <= ratio <= 1.25:
        return SAME
    return f"grows {number(ratio)}-fold" if ratio > 1 else f"falls to {percent(ratio)}"


def of_quantity(source: Source) -> str:
    """Find where a quantity is not finite, or in which timesteps most of a gradient lies.

    Directions and gates are separate.
    """
    shown = only_valid(source, 0.0)
    if "time" not in shown.dims or "step" in shown.dims:
        return ""
    if found := broken(shown.transpose(..., "time").values):
        return f"{subject(source.where, source.noun.capitalize())} {found}"
    if not source.is_gradient or "sample" not in shown.dims:
        return ""
    kept = [str(dim) for dim in shown.dims if dim not in ("direction", "gate")]
    found_in = [(name, within(_sizes(part))) for name, part in parts(shown, kept)]
    return sentence(f"{percent(SHARE)} of the {subject(source.where, source.noun)}", found_in)


def _sizes(values: xr.DataArray) -> Array:
    """Return the norm over units, (sample, time), relative to each sample's largest."""
    units = [str(dim) for dim in values.dims if dim not in ("sample", "time")]
    logs: Array = log_norm(values, *units).transpose("sample", "time").values
    peaks = logs.max(axis=1, keepdims=True)
    return np.asarray(np.exp(logs - np.where(np.isfinite(peaks), peaks, 0.0)))
