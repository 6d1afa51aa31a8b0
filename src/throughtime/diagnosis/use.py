"""U(k) with its interval from the losses after a swap, and the largest lag in use."""

from dataclasses import replace

import numpy as np
import xarray as xr

from throughtime._inputs import structures
from throughtime._inputs.batch import Batch
from throughtime.diagnostics import rules
from throughtime.diagnostics.statistics import Floats, interval, ratio_of_means
from throughtime.diagnostics.thresholds import USED

from .results import NO, NOT_MEASURED, UNCLEAR, YES, Answer
from .swap import Leaves, Reading, Swapped
from .words import number, phrase


def use(swapped: Swapped, lag: int, *, seed: int) -> Answer:
    """Whether inputs a lag or more steps back are used.

    U is the rise of the mean loss if they come from another sample, divided by its rise if all inputs do. If
    that rise does not surely exceed 1 % of the loss, or its standard deviation over samples if that is less,
    the model gains almost nothing from its inputs, as before training, and the answer can only be "no" or
    "unclear". It is "no" if the rise at the lag is surely below 1 % of the loss. It is also "no" if the loss
    is surely higher than with the same inputs for all samples, and exchanging all inputs does not surely
    raise it.
    """
    if swapped.reason:
        return Answer(NOT_MEASURED, threshold=USED, reason=swapped.reason)
    changes, full = swapped.changes[:, swapped.lags.index(lag)], swapped.changes[:, 0]
    usable = np.isfinite(changes) & np.isfinite(full)
    changes, full, before = changes[usable], full[usable], swapped.before[usable]
    if (n := len(full)) < 3:  # two samples exchange with each other
        few = (phrase("too_short", lag=lag), phrase("single"), phrase("pair"))[n]
        return Answer(UNCLEAR if n == 2 else NOT_MEASURED, n=n, threshold=USED, reason=few)
    if pays(swapped, seed=seed):
        value = float(ratio_of_means(changes, full))
        ends = interval(ratio_of_means, changes, full, seed=seed)
        return use_answer(value, ends, len(changes), does_pay=True)
    lost = float(np.mean(np.abs(before)))
    denied = _deny(changes, lost, seed=seed)
    if denied.answer == NO:
        gain = max(float(np.mean(full)), 0.0) / lost
        key = "little_gain" if gain < USED else "idle"
        return replace(denied, reason=phrase(key, share=f"{100 * gain:.1f} %", lag=lag))
    low, high = interval(np.mean, full, seed=seed)
    harm = "" if low > 0 else _harm(swapped, seed=seed)
    if harm or denied.reason:
        return replace(denied, answer=NO if harm else UNCLEAR, reason=harm or denied.reason)
    key = "gain_small" if high < USED * lost else "gain_unclear"
    return Answer(UNCLEAR, n=n, threshold=USED, reason=phrase(key, n=n, lag=lag))


def pays(swapped: Swapped, *, seed: int) -> bool:
    """Whether all inputs surely lower the loss by 1 %, or by its standard deviation (constants cancel)."""
    usable = np.isfinite(swapped.changes[:, 0])
    full, before = swapped.changes[usable, 0], swapped.before[usable]
    low, _ = interval(np.mean, full, seed=seed)
    return bool(usable.any() and low > min(USED * np.mean(np.abs(before)), np.std(before)))


def _harm(swapped: Swapped, *, seed: int) -> str:
    """Describe that the loss is higher than without inputs; empty if that is not sure.

    The loss without inputs is the best of a few predictions that ignore them. These differ by a constant, so
    that choosing the best on the same samples hardly favours it.
    """
    if not len(swapped.shared):
        return ""
    usable = np.isfinite(swapped.before) & np.isfinite(swapped.shared).all(axis=0)
    if usable.sum() < 2:
        return ""
    own, draws = swapped.before[usable], swapped.shared[:, usable]
    shared = draws[np.argmin(draws.mean(axis=1))]
    low, _ = interval(np.mean, own - shared, seed=seed)
    values = {"own": number(float(own.mean())), "shared": number(float(shared.mean()))}
    return phrase("inputs_do_harm", **values) if low > 0 else ""


def use_answer(value: float, ends: tuple[float, float], n: int, *, does_pay: bool) -> Answer:
    """Answer from U and its interval; use can only be denied unless all inputs together lower the loss."""
    answer = YES if does_pay and ends[0] > 0 and value >= USED else UNCLEAR
    is_denied = ends[1] < USED if does_pay else rules.answer(*ends, USED) == NO
    return Answer(NO if answer != YES and is_denied else answer, value, ends, n, USED)


def _deny(changes: Floats, scale: float, *, seed: int) -> Answer:
    if scale == 0:
        return Answer(UNCLEAR, n=len(changes), threshold=USED, reason=phrase("loss_is_zero"))
    value = float(np.mean(changes)) / scale
    low, high = (end / scale for end in interval(np.mean, changes, seed=seed))
    return use_answer(value, (low, high), len(changes), does_pay=False)


def use_curve(swapped: Swapped, *, seed: int) -> xr.Dataset | None:
    """Return U at every swapped lag above 0; None if nothing was measured."""
    if swapped.reason:
        return None
    lags = swapped.lags[1:]
    answers = [use(swapped, lag, seed=seed) for lag in lags]
    return xr.Dataset(
        {
            "use": ("lag", [one.value for one in answers]),
            "low": ("lag", [one.interval[0] for one in answers]),
            "high": ("lag", [one.interval[1] for one in answers]),
            "answer": ("lag", np.array([one.answer for one in answers], dtype=object)),
            "samples": ("lag", [one.n for one in answers]),
        },
        coords={"lag": list(lags)},
        attrs={"threshold": USED},
    )


def largest_used(curve: xr.Dataset) -> int | None:
    """Return the largest lag such that use was found at it and at all smaller ones.

    >>> answers = ("lag", ["yes", "yes", "unclear", "yes"])
    >>> largest_used(xr.Dataset({"answer": answers}, coords={"lag": [1, 2, 4, 8]}))
    2
    """
    ordered = curve.sortby("lag")
    found = None
    for lag, answer in zip(ordered["lag"].values, ordered["answer"].values, strict=True):
        if answer != YES:
            break
        found = int(lag)
    return found


def are_labels_equal(batch: Batch, reading: Reading) -> bool:
    """Whether all samples have the same labels, so that any exchange of all inputs has the same mean loss."""
    samples = len(reading.valid)
    if samples < 2 or batch.sample_weight is not None or not Leaves(batch.x, reading).are_all:
        return False
    labels = [structures.to_numpy(leaf) for leaf in structures.leaves(batch.y)]
    return all(each.shape[:1] == (samples,) and bool((each == each[:1]).all()) for each in labels)


def pool(parts: list[Swapped]) -> Swapped:
    """Join the samples of several batches; those that were not measured are left out."""
    measured = [part for part in parts if not part.reason]
    if not measured:
        return parts[0]
    return Swapped(
        measured[0].lags,
        np.concatenate([part.changes for part in measured]),
        np.concatenate([part.before for part in measured]),
        np.concatenate([part.shared for part in measured], axis=1),
        without_partner=sum(part.without_partner for part in parts),
    )
