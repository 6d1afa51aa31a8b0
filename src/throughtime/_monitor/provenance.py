"""The provenance of a run (model, batch, settings, versions, commit), and whether it can be continued."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from throughtime._capture.label import Captured
from throughtime._errors import StoreError
from throughtime.diagnostics.alarm import OFF

from .fingerprints import fingerprint
from .levels import weights_of

if TYPE_CHECKING:
    from .settings import Settings

LAYERS, BATCH = "model_layers", "batch_fingerprint"
_LIBRARIES = ("throughtime", "numpy", "xarray", "zarr")
_FRAMEWORKS = ("keras", "tensorflow", "jax", "torch", "tf_keras", "lightning")
_LONGEST = 100_000  # characters: each step rewrites all attributes
_PATIENCE = 2.0  # seconds, for git in a large folder


def attributes_of(model: Any, loss: Any, settings: Settings, captured: Captured) -> dict[str, str | int]:
    """Return the attributes of a run as plain strings; lists and mappings are JSON."""
    attributes = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "model_class": f"{type(model).__module__}.{type(model).__qualname__}",
        "model_summary": _text_of(lambda: str(import_module("throughtime._capture.summary").summary(model))),
        "model_config": _text_of(model.to_json) if hasattr(model, "to_json") else "",
        OFF: json.dumps(settings.alarms_off),
        "monitor_config": json.dumps(_config(model, loss, settings)),
        "versions": json.dumps(_versions()),
        **_commit(),
        **identity(settings.batch, captured),
    }
    return {name: value for name, value in attributes.items() if value != ""}


def identity(batch: tuple[Any, Any, Any], captured: Captured) -> dict[str, str]:
    """Return the attributes that must be equal for a run to be continued."""
    return {LAYERS: json.dumps(_layers(captured)), BATCH: json.dumps(fingerprint(batch))}


def check_continues(path: str | os.PathLike[str], run: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Refuse to continue a run with another model or another batch.

    Raises
    ------
    StoreError
        The model or the batch differs; the message names the difference.
    """
    before, now = (json.loads(str(each.get(LAYERS, "{}"))) for each in (run, found))
    if before and (differing := list(_differing(before, now))):
        raise StoreError(
            f"{path} was recorded from another model: {'; '.join(differing)}. For this model, pass "
            "another path, mode='new' or mode='overwrite'."
        )
    before, now = (json.loads(str(each.get(BATCH, "{}"))) for each in (run, found))
    if before and before != now:
        parts = [_arrays_in_words(each["arrays"]) for each in (before, now)]
        difference = f"{parts[0]} in the run, {parts[1]} here" if parts[0] != parts[1] else "other values"
        raise StoreError(
            f"{path} was recorded on another batch: {difference}. Numbers of two batches do not form "
            "one curve: pass the same batch, another path, mode='new' or mode='overwrite'."
        )


def _layers(captured: Captured) -> dict[str, Any]:
    weights = weights_of(captured)
    return {
        path.strip("/"): {
            "kind": str(leaf.layout.attrs.get("kind")),
            "weights": {name: list(array.shape) for name, array in weights[path].items()},
        }
        for path, leaf in captured.leaves.items()
    }


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for path in sorted(before.keys() | now.keys()):
        if path not in now:
            yield f"it has {path}, which this model lacks"
        elif path not in before:
            yield f"it has no {path}"
        elif before[path]["kind"] != now[path]["kind"]:
            yield f"{path} is {before[path]['kind']} in the run, {now[path]['kind']} here"
        else:
            yield from _differing_weights(path, before[path]["weights"], now[path]["weights"])


def _differing_weights(path: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(before.keys() | now.keys()):
        shapes = [tuple(each[name]) if name in each else "absent" for each in (before, now)]
        if shapes[0] != shapes[1]:
            yield f"{name} of {path} is {shapes[0]} in the run, {shapes[1]} here"


def _arrays_in_words(arrays: list[dict[str, Any]]) -> str:
    return ", ".join(f"{each['dtype']} {tuple(each['shape'])}" for each in arrays)


def _config(model: Any, loss: Any, settings: Settings) -> dict[str, Any]:
    level = settings.level
    return {
        "quantities": level if isinstance(level, str) else sorted(level),
        "schedule": settings.schedule,
        "layers": settings.layers if isinstance(settings.layers, (str, int)) else _name(settings.layers),
        "loss": _name(getattr(model, "loss", None) if loss is None else loss),
        "budget": settings.budget,
        "vanishing_lag": settings.vanishing_lag,
        "background": settings.background,
    }


def _name(thing: Any) -> str:
    """Name a function, an object or a list of them, without addresses, which differ between processes."""
    if isinstance(thing, (list, tuple)):
        return ", ".join(map(_name, thing))
    if thing is None or isinstance(thing, (str, int, float)):
        return str(thing)
    return str(getattr(thing, "__qualname__", None) or type(thing).__qualname__)


def _versions() -> dict[str, str]:
    """Return the versions of the loaded libraries."""
    found = {"python": platform.python_version()}
    for name in (*_LIBRARIES, *(each for each in _FRAMEWORKS if each in sys.modules)):
        loaded = getattr(sys.modules.get(name), "__version__", "unknown")
        found[name] = version_of(name) or str(loaded)
    return found


def _commit() -> dict[str, str | int]:
    """Return the commit of the working directory, if any, and whether tracked files differ from it."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return {}
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return {"git_commit": commit, **({} if changed is None else {"git_dirty": int(bool(changed))})}


def _git(*arguments: str) -> str | None:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # git writes nothing into the user's repository
    try:
        done = subprocess.run(
            ["git", *arguments],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            env=environment,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _text_of(describe: Callable[[], Any]) -> str:
    """Return a description, or the reason why there is none: an error must not stop training."""
    try:
        text = str(describe())
    except Exception as error:  # a model's own description may raise anything
        return f"not available: {type(error).__name__}: {error}"
    return text if len(text) <= _LONGEST else f"not stored: {len(text):,} characters"


def version_of(name: str) -> str | None:
    """Return the version of a distribution; None if it is not installed.

    Examples
    --------
    >>> version_of("no-such-library") is None
    True
    """
    try:
        return version(name)
    except PackageNotFoundError:
        return None
