"""Causes: evidence from gates, weights and states of a layer, and remedies.

Evidence is measured if possible; each remedy rests on one piece of evidence.
"""

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import xarray as xr

from throughtime._errors import ThroughTimeError
from throughtime._tree import state_gradients
from throughtime.adapters.optimizer import OptimizerStep
from throughtime.diagnostics import recurrent_spectrum, saturation, timescale
from throughtime.diagnostics.lags import edges, valid_steps
from throughtime.diagnostics.lyapunov_spectrum import of_few_samples
from throughtime.diagnostics.rules import MEMORY_GATE, Growth, is_bounded, saturated_gates
from throughtime.diagnostics.thresholds import MOSTLY, THROWN

from .results import Evidence, LayerDiagnosis, Remedy, Verdict
from .words import SOURCES, number, phrase, with_interval

_FLOOR = 10  # times the optimizer's epsilon
_KEEPS_LENGTH = 0.95  # share of a signal left by a step, from which a kernel keeps it
_STILL = 1e-3  # largest difference between samples, of states between two limits
_WIDE = 30.0  # root mean square of inputs that are far from scaled
_END = 0.8  # of a state between −1 and 1, as a gate within a tenth of its range
_LONG = 0.5  # a step this long, relative to an orthogonal kernel, leaves little of the kernel
_WORTH_NAMING = 0.1  # share of the weights below it


def evidence(layer: xr.Dataset, fitted: xr.Dataset | None, optimizer: OptimizerStep) -> tuple[Evidence, ...]:
    """Measure the evidence that explains the memory of one direction of one layer."""
    sources: tuple[Callable[[], Iterator[Evidence]], ...] = (
        lambda: _timescale(layer),
        lambda: _saturation(layer),
        lambda: _forget_bias(layer),
        lambda: _decay(fitted),
        lambda: _lyapunov(layer),
        lambda: _spectrum(layer),
        lambda: _optimizer(layer, optimizer),
        lambda: _cut(layer),
        lambda: _dead(layer),
        lambda: _wide(layer),
        lambda: _frozen(layer),
    )
    return tuple(each for source in sources for each in _try_source(source))


def growth_evidence(grown: Growth, step: float, clip: float) -> Iterator[Evidence]:
    """Report gradients that grow within the window, the next step, and how to clip it if it is large."""
    if not grown.is_sure:
        return
    yield Evidence("growth", grown.factor, phrase("growth", lag=grown.lag, factor=number(grown.factor)))
    if step >= THROWN or (step > 0 and clip > 0):
        yield Evidence("step", step, phrase("step", step=number(step)))
    if step >= THROWN and clip > 0:
        clip = float(f"{clip:.2g}")
        yield Evidence("clip_norm", clip, phrase("clip_norm", norm=f"{clip:,g}"))


def _try_source(source: Callable[[], Iterator[Evidence]]) -> list[Evidence]:
    try:
        return list(source())
    except ThroughTimeError:  # a cell without this quantity
        return []


def _timescale(layer: xr.Dataset) -> Iterator[Evidence]:
    steps = timescale(layer).values
    median, p90, largest = (float(np.quantile(steps, q, method="nearest")) for q in (0.5, 0.9, 1.0))
    values = {"median": number(median), "p90": number(p90), "largest": number(largest)}
    yield Evidence("timescale", largest, phrase("timescale", **values))


def _saturation(layer: xr.Dataset) -> Iterator[Evidence]:
    found = saturation(layer)
    shares = found.mean([dim for dim in found.dims if dim != "gate"])
    yield from saturation_evidence(shares["left"], shares["right"], str(layer.attrs.get("kind")))


def saturation_evidence(left: xr.DataArray, right: xr.DataArray, kind: str) -> Iterator[Evidence]:
    """Report gates at one end of their range, from the share of their values there (gate)."""
    gates = [str(gate) for gate in left["gate"].values]
    for gate, end, share in saturated_gates(left.values, right.values, gates, kind):
        text = phrase("saturation", gate=gate, end=end, share=f"{share:.0%}")
        yield Evidence(f"saturation_{gate}", share, text)


def _forget_bias(layer: xr.Dataset) -> Iterator[Evidence]:
    gate = MEMORY_GATE.get(str(layer.attrs.get("kind")))
    if gate is None or "bias" not in layer:
        return
    biases = [layer[name].sel(gate=gate) for name in ("bias", "recurrent_bias") if name in layer]
    value = float(sum(bias.mean() for bias in biases))
    yield Evidence("forget_bias", value, phrase("forget_bias", gate=gate, bias=number(value)))


def _decay(fitted: xr.Dataset | None) -> Iterator[Evidence]:
    if fitted is None or np.isnan(fitted["rate"]):
        return
    rate, ends = float(fitted["rate"]), (float(fitted["low"]), float(fitted["high"]))
    fit = "" if bool(fitted["exponential"]) else ", but not at a constant rate"
    yield Evidence("decay_rate", rate, phrase("decay", rate=with_interval(rate, ends), fit=fit))


def _lyapunov(layer: xr.Dataset) -> Iterator[Evidence]:
    exponents = of_few_samples(layer)
    if exponents is None:
        return
    largest, n = float(exponents.isel(exponent=0).mean()), exponents.sizes["sample"]
    if np.isfinite(largest):
        factor, samples = number(math.exp(largest)), f"{n} sample{'s' * (n > 1)}"
        text = phrase("lyapunov", exponent=number(largest), factor=factor, n=samples)
        yield Evidence("lyapunov", largest, text)


def _spectrum(layer: xr.Dataset) -> Iterator[Evidence]:
    found = recurrent_spectrum(layer.drop_vars("state_jacobian", errors="ignore"))  # as many as steps
    radius, largest = found["spectral_radius"], float(found["largest_singular_value"].max())
    if "gate" in radius.dims:
        each = zip(map(str, radius["gate"].values), radius.values, strict=True)
        radii = ", ".join(f"{gate} {number(float(value))}" for gate, value in each)
        text = phrase("spectrum_of_gates", radii=radii)
    else:
        text = phrase("spectrum", radius=number(float(radius)), sigma=number(largest))
    yield Evidence("spectrum", float(radius.max()), text)


def _optimizer(layer: xr.Dataset, optimizer: OptimizerStep) -> Iterator[Evidence]:
    """Report an epsilon large beside the gradients, and a rate large beside an orthogonal kernel."""
    if (epsilon := optimizer.epsilon) is None:
        return
    if "recurrent_kernel_gradient" in layer:
        below = float((np.abs(layer["recurrent_kernel_gradient"]) < _FLOOR * epsilon).mean())
        text = phrase("floor", share=f"{below:.0%}", epsilon=number(epsilon))
        yield from [Evidence("optimizer_floor", below, text)] if below >= _WORTH_NAMING else []
    step = optimizer.rate * math.sqrt(layer.sizes.get("unit", 0))  # of weights with a gradient of any size
    if optimizer.is_bounded and step >= _LONG:
        yield Evidence("rate", step, phrase("rate", rate=number(optimizer.rate), step=number(step)))


def _cut(layer: xr.Dataset) -> Iterator[Evidence]:
    """Report the nearest edge between windows that no gradient crosses, in steps from the end or a loss."""
    name = state_gradients(layer)[0]
    if name not in layer:
        return
    between = np.isin(np.arange(layer.sizes["time"]), edges(layer)).cumsum()  # of cells and modules
    call = layer["call"].values if "call" in layer.coords else between
    lag = _cut_from_losses(layer, call) if "lag_matrix" in layer else _cut_from_end(layer[name], call)
    if lag is not None:
        yield Evidence("cut", lag, phrase("cut", lag=lag))


def _cut_from_losses(layer: xr.Dataset, call: npt.NDArray[np.intp]) -> int | None:
    """Return the steps of the longest window if no loss reaches a window before its own."""
    later = call[layer["loss_time"].values][:, None] > call
    norms = layer["lag_matrix"].transpose("sample", "loss_time", "time").values
    is_cut = later.any() and norms.any() and not norms[:, later].any()
    return int(np.bincount(call).max()) if is_cut else None


def _cut_from_end(gradient: xr.DataArray, call: npt.NDArray[np.intp]) -> int | None:
    """Return the steps from the first window with gradient to the end, if windows before it have none."""
    arrives = (gradient != 0).any([dim for dim in gradient.dims if dim != "time"]).values
    starts = map(int, np.flatnonzero(np.diff(call)) + 1)  # of windows
    return next((len(call) - edge for edge in starts if arrives[edge] and not arrives[:edge].any()), None)


def _dead(layer: xr.Dataset) -> Iterator[Evidence]:
    """Report units that do not react to inputs that differ: those of a dead relu, and saturated ones."""
    if not {"hidden", "input"} <= {*layer.data_vars}:
        return
    spread, given = (
        np.ptp(1.0 * layer[name].transpose("sample", ...).values, 0) for name in ("hidden", "input")
    )
    share = float((spread.max(axis=0) <= _STILL * is_bounded(layer.attrs)).mean())
    if given.any() and share >= MOSTLY:
        yield Evidence("dead", share, phrase("dead", share=f"{share:.0%}"))


def _wide(layer: xr.Dataset) -> Iterator[Evidence]:
    """Report inputs so large that they drive a layer's gates or states to the ends of their ranges."""
    if "input" not in layer or not is_bounded(layer.attrs):
        return
    valid = valid_steps(layer)
    given = layer["input"].where(valid, 0).values.ravel()
    size = math.sqrt(float(np.vdot(given, given)) / max(given.size * float(valid.mean()), 1))
    if size >= _WIDE and _at_ends(layer) >= MOSTLY:
        yield Evidence("wide", size, phrase("wide", size=number(size)))


def _at_ends(layer: xr.Dataset) -> float:
    """Return the share of a layer's gates, or of its states without gates, at an end of their range."""
    if "gate_activation" in layer:
        found = saturation(layer)
        return float((found["left"] + found["right"]).mean())
    return float((np.abs(layer["hidden"]) > _END).mean())


def _frozen(layer: xr.Dataset) -> Iterator[Evidence]:
    if layer.attrs.get("trainable") == 0:
        yield Evidence("frozen", 1, phrase("frozen"))


def remedies(
    layer: LayerDiagnosis, verdict: Verdict, lag: int | None, optimizer: OptimizerStep
) -> Iterator[Remedy]:
    """Yield the remedies for one layer; `lag` is None unless the task needs it and is not solved."""
    known = layer.evidence
    throws = optimizer.is_known and "step" in known and known["step"].value >= THROWN
    if "growth" in known and (verdict is Verdict.UNSTABLE or throws):
        if not optimizer.clips:
            reasons = [known[name].text for name in ("step", "clip_norm") if name in known]
            yield remedy("remedy_clipping", "; ".join(reasons) or known["growth"].text)
        yield from of_kernel(layer)
    is_fast = "rate" in known and "frozen" not in known and verdict in (Verdict.NO_EVIDENCE, Verdict.UNUSED)
    if lag is None or not (is_fast or verdict in (Verdict.NO_EVIDENCE, Verdict.WEAK_SIGNAL)):
        return
    cut, dead = known.get("cut"), known.get("dead") or known.get("wide")
    if "frozen" in known:
        yield remedy("remedy_frozen", known["frozen"].text)
    elif cut is not None and cut.value <= lag:
        yield remedy("remedy_window", cut.text, lag=lag, s="s")
    elif is_fast:
        yield remedy("remedy_rate", known["rate"].text)
    elif dead is not None:
        yield remedy("remedy_dead", dead.text)
    else:
        yield from _for_memory(layer, known, lag)


def _for_memory(layer: LayerDiagnosis, known: Mapping[str, Evidence], lag: int) -> Iterator[Remedy]:
    scale, bias = known.get("timescale"), known.get("forget_bias")
    radius, rate = known.get("spectrum"), known.get("decay_rate")
    if scale is not None and scale.value < lag:
        gate = MEMORY_GATE.get(layer.kind, "forget")
        yield remedy("remedy_chrono", scale.text, gate=gate, longest=max(lag - 1, 2))
    elif layer.kind == "lstm" and bias is not None and bias.value < 0.5:
        yield remedy("remedy_forget_bias", bias.text)
    if layer.kind == "simple_rnn" and radius is not None and radius.value < _KEEPS_LENGTH:
        yield remedy("remedy_orthogonal", radius.text)
    elif layer.kind == "simple_rnn" and rate is not None and math.exp(rate.value) < _KEEPS_LENGTH:
        yield remedy("remedy_orthogonal", rate.text)
    floor = known.get("optimizer_floor")
    if floor is not None and floor.value > 0.5:
        yield remedy("remedy_epsilon", floor.text)


def of_kernel(layer: LayerDiagnosis) -> Iterator[Remedy]:
    """Yield the remedy for a recurrent kernel that makes gradients grow, by Lyapunov exponent or radius."""
    known, is_simple = layer.evidence, layer.kind == "simple_rnn"
    radius = known.get("spectrum")
    grows = known.get("lyapunov", Evidence("", radius.value - 1 if radius and is_simple else 0.0, ""))
    if grows.value > 0:
        reasons = [each.text for each in (known.get("lyapunov"), radius) if each is not None]
        gated = ", or use a gated cell, LSTM or GRU" if is_simple else ""
        yield remedy("remedy_kernel", "; ".join(reasons), gated=gated)


def reading_remedy(path: str) -> Remedy:
    """Return the remedy for a layer that is read only at its first step."""
    return remedy("remedy_ends" if path.endswith("]") else "remedy_last_step", phrase("misread", layer=path))


def remedy(key: str, evidence: str, **values: object) -> Remedy:
    """Return a remedy, with its source."""
    return Remedy(phrase(key, **values), evidence, SOURCES[key], key.removeprefix("remedy_"))
