"""The provenance of a run (model, batch, settings, versions, commit), and whether a run can be continued."""

from __future__ import annotations

import hashlib
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

import numpy as np

from throughtime._capture.label import Captured
from throughtime._errors import StoreError
from throughtime._inputs.structures import leaves, to_numpy
from throughtime.diagnostics.alarm import OFF

from .levels import weights_of

if TYPE_CHECKING:
    from .settings import Settings


LAYERS, BATCH = "model_layers", "batch_fingerprint"
_LIBRARIES = ("throughtime", "numpy", "xarray", "zarr")
_FRAMEWORKS = ("keras", "tensorflow", "jax", "torch", "tf_keras", "lightning")
_LONGEST = 100_000  # characters: each step rewrites all attributes
_PATIENCE = 2.0  # seconds, for git in a large folder
_MOST = 2**18  # elements of one weight that are hashed; a larger weight is sampled evenly


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
    """Refuse to continue a run with another model or another batch; the message names the difference."""
    before, now = (json.loads(str(each.get(LAYERS, "{}"))) for each in (run, found))
    if before and (differing := list(_differences(before, now))):
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


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for path in sorted(before.keys() | now.keys()):
        if path not in now:
            yield f"it has {path}, which this model lacks"
        elif path not in before:
            yield f"it has no {path}"
        elif before[path]["kind"] != now[path]["kind"]:
            yield f"{path} is {before[path]['kind']} in the run, {now[path]['kind']} here"
        else:
            yield from _weight_differences(path, before[path]["weights"], now[path]["weights"])


def _weight_differences(path: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
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
        "layers": settings.layers if isinstance(settings.layers, (str, int)) else name_of(settings.layers),
        "loss": name_of(getattr(model, "loss", None) if loss is None else loss),
        "budget": settings.budget,
        "vanishing_lag": settings.vanishing_lag,
        "background": settings.background,
    }


def name_of(thing: Any) -> str:
    """Name a function, an object or a list of them, without addresses, which differ between processes."""
    if isinstance(thing, (list, tuple)):
        return ", ".join(map(name_of, thing))
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

    >>> version_of("no-such-library") is None
    True
    """
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def fingerprint(batch: Any) -> dict[str, Any]:
    """Describe a batch: shapes, dtypes, and the SHA-256 of its contents.

    >>> found = fingerprint(([[1.0, 2.0]], None))
    >>> found["arrays"]
    [{'shape': [1, 2], 'dtype': 'float64'}]
    >>> found["sha256"] == fingerprint(([[1.0, 3.0]], None))["sha256"]
    False
    """
    digest, arrays = hashlib.sha256(), []
    for array in _arrays(batch):
        described = {"shape": list(array.shape), "dtype": str(array.dtype)}
        content = repr(array.tolist()).encode() if array.dtype.hasobject else np.ascontiguousarray(array).data
        digest.update(json.dumps(described).encode())
        digest.update(content)
        arrays.append(described)
    return {"arrays": arrays, "sha256": digest.hexdigest()}


def weights_fingerprint(model: Any) -> int:
    """Hash the exact values of the weights of a model or a checkpoint; 0 if they cannot be read.

    The buffers of a torch module are not hashed: a checkpoint need not contain those.

    >>> class Model:
    ...     def get_weights(self):
    ...         return [np.ones((2, 3), "float32")]
    >>> weights_fingerprint(Model()) == weights_fingerprint(Model()) != 0
    True
    """
    digest = hashlib.blake2b(digest_size=8)
    try:
        arrays = (array for array in map(_sample, _weights_of(model)) if array.dtype.kind in "fiubc")
        digest.update(next(arrays).tobytes())  # a function has no weights
        for array in arrays:
            digest.update(array.tobytes())
    except Exception:  # unknown kind of weights; "auto" does not continue a run without a fingerprint
        return 0
    return int.from_bytes(digest.digest(), "little", signed=True)


def is_of_jax(model: Any) -> bool:
    """Whether a model that can be captured is one of JAX, which training may replace by another."""
    return not hasattr(model, "get_weights") and not hasattr(model, "parameters")


def _weights_of(model: Any) -> list[Any]:
    if isinstance(model, dict | list | tuple):  # of arrays, or of modules of JAX
        return [
            part for leaf in leaves(model) for part in ([leaf] if hasattr(leaf, "dtype") else _nodes(leaf))
        ]
    if not is_of_jax(model):
        return list(model.get_weights() if hasattr(model, "get_weights") else model.parameters())
    return [leaf for leaf in _nodes(model) if "float" in str(getattr(leaf, "dtype", ""))]


def _nodes(module: Any) -> list[Any]:
    return sys.modules["jax"].tree.leaves(module) if "jax" in sys.modules else [module]


def _sample(weight: Any) -> np.ndarray[Any, Any]:
    """Return all elements of a weight, or as many as can be hashed in a millisecond."""
    flat = (weight.detach() if hasattr(weight, "detach") else np.asarray(weight)).reshape(-1)
    return to_numpy(flat[:: max(1, -(-len(flat) // _MOST))])


def _arrays(part: Any) -> Iterator[np.ndarray[Any, Any]]:
    """Yield the arrays of a batch in a fixed order, including those inside tuples and mappings."""
    if part is None:
        return
    if isinstance(part, Mapping):
        for name in sorted(part, key=str):
            yield from _arrays(part[name])
    elif isinstance(part, tuple) or (isinstance(part, list) and any(hasattr(each, "shape") for each in part)):
        for each in part:
            yield from _arrays(each)
    else:
        yield to_numpy(part)
