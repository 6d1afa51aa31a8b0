"""The next actions after a diagnosis, with code to paste for Keras and PyTorch; `actions.toml` has both."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from throughtime._vocabulary import CLASSES
from throughtime.adapters.optimizer import OptimizerStep
from throughtime.diagnostics.thresholds import FAINT

from . import causes
from .results import NO, NOT_MEASURED, UNCLEAR, LayerDiagnosis, Remedy, Results, Verdict
from .words import phrase

_Code = Mapping[str, Mapping[str, str]]  # by framework and remedy
_TABLES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_TEXTS: Mapping[str, str] = _TABLES["texts"]
_OF_MODEL: _Code = _TABLES["model"]
_OF_LAYER: _Code = _TABLES["layer"]
_NEED_LAYER = ("chrono", "orthogonal", "forget_bias", "kernel", "frozen")  # remedies whose code names a layer
_AT_ANY_LAG = {"dead", "wide", "rate", "frozen"}  # remedies, evidence of layers that learn at no lag
_BARE = ("lstm", "gru", "rnn")  # what a layer of torch is called that is the model itself


@dataclass(frozen=True)
class Action:
    """One action: its text, the reason with its source, and optional code to paste."""

    text: str
    reason: str = ""
    code: str = ""


def actions(found: Results) -> Iterator[Action]:
    """Yield the next actions, the first one first, with code for the framework of the model.

    >>> from throughtime import diagnose, testing
    >>> found = diagnose(testing.decaying(rate=0.5, samples=16), dependency_length=20)
    >>> [each.text for each in actions(found)][0]
    'Measure use, which needs the model and its data'
    """
    lag, used = found.lag, [each.use for each in found.layers.values()]
    yield from (_action(found, each) for each in found.misread)
    yield from () if found.misread else _kept(found)
    if found.stopped == "nonfinite" and found.verdict is Verdict.UNSTABLE:
        yield Action(_TEXTS["finite"], code=_code(found, Remedy(_TEXTS["finite"], "", "", "clipping")))
    advised = () if found.remedies or found.is_solved else tuple(_advice(found))
    if found.dependency_length is None:  # then it holds at any lag
        yield from advised
    if any("needs the model" in each.reason for each in used):
        yield Action(_TEXTS["use"], code=_again(lag))
    elif any(each.reason in (phrase("equal_inputs"), phrase("equal_labels")) for each in used):
        yield Action(_TEXTS["equal"])
    elif found.dependency_length is None and found.layers and found.verdict is not Verdict.UNSTABLE:
        yield Action(
            _TEXTS["older_lag" if found.uses_newest_alone else "lag"],
            code=f"{_again(lag)}  # your lag instead of {lag}",
        )
    if not found.is_solved and used and all(each.answer == NOT_MEASURED for each in used):
        yield from (Action(text) for part, text in _TABLES["unmeasured"].items() if part in used[0].reason)
    yield from _more_samples(found)
    is_harmed = any("if all samples get the same inputs" in each.reason for each in used)
    if is_harmed:
        yield Action(_TEXTS["harm"])
    others = (each for each in found.remedies if each not in found.misread)
    yield from (_action(found, each) for each in others)
    if found.dependency_length is not None:
        yield from advised
    is_plain = not found.remedies and not found.is_solved and not is_harmed and not found.uses_newest_alone
    is_plain = is_plain and not _AT_ANY_LAG & {each.name for each in found.why}
    if found.verdict is Verdict.UNUSED and is_plain:
        key = "unused_if_bad" if found.is_solved is None else "unused"
        yield Action(_TEXTS[key].format(lag=found.lag))


def _kept(found: Results) -> Iterator[Action]:
    """Yield whether the model may stay as it is, which depends on its loss."""
    if found.verdict in (Verdict.USES, Verdict.WEAK_SIGNAL) and not found.is_solved:
        yield Action(_TEXTS["kept_if_good" if found.is_solved is None else "unsolved"])
    elif found.is_solved and (found.verdict is Verdict.USES or not found.remedies):
        yield Action(_TEXTS["kept"])


def _more_samples(found: Results) -> Iterator[Action]:
    """Yield the advice to pass more samples where that decides."""
    layers = found.layers.values()
    if found.verdict is not Verdict.CANNOT_SAY or not layers:
        return
    if found.samples in (1, 2):  # 0 where a summary does not count them
        yield Action(_TEXTS["samples"])
    elif any(each.use.answer == UNCLEAR and each.use.reason != phrase("loss_is_zero") for each in layers):
        yield Action(_TEXTS["more_samples"].format(n=found.samples, what="use"))
    elif all(each.use.answer == NO for each in layers) and not found.uses_newest_alone:
        yield Action(_TEXTS["more_samples"].format(n=found.samples, what="reach"))


def _advice(found: Results) -> Iterator[Action]:
    """Yield what may help without a loss at which the model would be solved."""
    conditions = ("If the loss is too high, ", "Or ")
    for place, each in enumerate({one.text: one for one in _conditional_remedies(found)}.values()):
        yield _action(found, each, conditions[min(place, 1)])


def _again(lag: int | None) -> str:
    return f"print(tt.diagnose(model, x, y, dependency_length={lag}))"


def _conditional_remedies(found: Results) -> Iterator[Remedy]:
    """Yield remedies that apply if the task is not solved: for memory, if it needs the requested lag."""
    if found.verdict in (Verdict.USES, Verdict.UNSTABLE):
        return
    for layer in found.layers.values():
        every = _remedies_of(found, layer)
        yield from (each for each in every if found.dependency_length or each.name in _AT_ANY_LAG)


def _remedies_of(found: Results, layer: LayerDiagnosis) -> Iterator[Remedy]:
    if layer.verdict is Verdict.UNSTABLE:
        yield from causes.of_kernel(layer)
        return
    every = causes.remedies(layer, Verdict.NO_EVIDENCE, found.lag, OptimizerStep())
    if layer.reach.answer == NO or layer.reach.value < FAINT or _AT_ANY_LAG & {*layer.evidence}:
        # A model of weak signal learns, so its rate is not too large.
        learns = found.verdict not in (Verdict.NO_EVIDENCE, Verdict.UNUSED)
        yield from (each for each in every if not (learns and each.name == "rate"))


def _action(found: Results, remedy: Remedy, condition: str = "") -> Action:
    text = f"{condition}{remedy.text}"
    reason = f"Because: {remedy.evidence}. Source: {remedy.source}."
    return Action(text[:1].upper() + text[1:], reason, _code(found, remedy))


def _code(found: Results, remedy: Remedy) -> str:
    framework = found.framework.replace("tf_", "").removesuffix("2")
    return "\n".join(_lines(found, remedy, framework))


def _lines(found: Results, remedy: Remedy, framework: str) -> tuple[str, ...]:
    """Return lines to paste; none if the framework or the place of the layer is unknown."""
    if framework not in _OF_MODEL:
        return ()
    fixed = tuple(_OF_MODEL[framework].get(remedy.name, "").splitlines())
    if remedy.name == "clipping":
        return _clipping_lines(found, fixed)
    if remedy.name == "ends":
        kinds = {each.kind for each in found.layers.values()}
        name = CLASSES.get(kinds.pop(), "LSTM") if len(kinds) == 1 else "LSTM"
        return tuple(line.replace("LSTM", name) for line in fixed)
    if fixed or remedy.name not in _NEED_LAYER or not found.layers:
        return fixed
    needing = [
        path
        for path, each in found.layers.items()
        if "@" not in path and remedy.text in {one.text for one in _remedies_of(found, each)}
    ]
    of_layer = _keras_lines if framework == "keras" else _torch_lines
    longest = max((found.dependency_length or 2) - 1, 2)
    blocks = {
        path: of_layer(path, found.layers[path], remedy.name, longest) for path in needing or found.layers
    }
    if not any(blocks.values()):
        return ()
    return tuple(line for path, block in blocks.items() for line in block or (f"# {path} needs the same",))


def _clipping_lines(found: Results, lines: tuple[str, ...]) -> tuple[str, ...]:
    norms = [each.evidence.get("clip_norm") for each in found.layers.values()]
    limits = [each.value for each in norms if each is not None]
    limit, origin = "1.0", "about the usual norm of the gradient"
    if limits:
        limit, origin = f"{min(limits):.15g}", "follows from your learning rate"
    return tuple(line.format(limit=limit, origin=origin) for line in lines)


def _lines_of(framework: str, layer: LayerDiagnosis, remedy: str) -> list[str]:
    name = f"chrono_{layer.kind}" if remedy == "chrono" else remedy
    return _OF_LAYER[framework].get(name, "").splitlines()


def _keras_lines(path: str, layer: LayerDiagnosis, remedy: str, longest: int) -> tuple[str, ...]:
    name, _, direction = path.rstrip("]").partition("[")
    lines = _lines_of("keras", layer, remedy)
    if not lines or "/" in name or "@" in name:
        return ()
    half = f".{direction}_layer" if direction else ""
    first = f'layer = model.get_layer("{name}"){half}'
    return first, *(line.format(longest=longest) for line in lines)


def _torch_lines(path: str, layer: LayerDiagnosis, remedy: str, longest: int) -> tuple[str, ...]:
    place, _, direction = path.rstrip("]").partition("[")
    name, _, number = place.rpartition("/")
    is_inner = number.isdigit() and not layer.is_cell
    name, number = (name, number) if is_inner else (place, "0")
    suffix = "" if layer.is_cell else f"_l{number}{'_reverse' * (direction == 'backward')}"
    module = f'model.get_submodule("{name.replace("/", ".")}")'
    if name in _BARE:  # a part of the model with this name, or the model itself
        module = f'getattr(model, "{name}", model)'
    first = f"layer = {module}", "units = layer.hidden_size"
    if remedy == "orthogonal":
        return first[0], f"torch.nn.init.orthogonal_(layer.weight_hh{suffix})"
    lines = _lines_of("torch", layer, remedy)
    if not lines:
        return ()
    filled = (line.format(longest=longest, suffix=suffix) for line in lines)
    return *first, "with torch.no_grad():", *filled
