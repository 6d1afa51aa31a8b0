"""`sweep` and `open_sweep`: the public functions."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from throughtime import __version__
from throughtime._capture.probe import Probe
from throughtime._errors import SweepError, warn
from throughtime._inputs import takes
from throughtime._inputs.rules import choice, whole
from throughtime._monitor.provenance import weights_fingerprint
from throughtime._store.open_run import open_run
from throughtime.diagnosis.progress import Passes

from .engine import run
from .identity import content_of
from .parts import DATA, JOB, PARTS, RUN, SPECIFICATION, written
from .record import Result
from .shards import shards_of
from .task import LEVELS, Job, makes_model


@takes(
    SweepError,
    quantities=choice(*LEVELS),
    dependency_length=whole(1, of="timesteps"),
    shard_size=whole(1, of="samples"),
)
def sweep(
    model: Any,
    data: Any,
    *,
    checkpoints: Any = None,
    quantities: str = "summary",
    layers: Any = "recurrent",
    loss: Any = None,
    to: str | os.PathLike[str] = "sweep",
    executor: Any = None,
    dependency_length: int | None = None,
    shard_size: int = 256,
) -> xr.DataTree:
    """Capture a whole data set, at one checkpoint or many, and reduce it to one record a checkpoint.

    A task captures one shard of the data at one checkpoint, reduces it and writes one file. Files add up:
    losses, weight gradients and counts exactly, quantiles of norms and of gradient ratios within 0.5 %. The
    result does not depend on the executor or on the order of the tasks. If a sweep is interrupted, the same
    call does what is missing. A task that fails is tried once more, and then named in the result.

    Parameters
    ----------
    model : model, or a function without arguments that makes one
        Other processes need one that can be pickled, or the function. The model keeps its weights.
    data : (x, y) or (x, y, sample_weight), a dataset, or a list of functions
        Arrays are split into shards. Each batch of a dataset is a shard, and is written to disk once. Each
        function loads a shard, (x, y) or (x, y, sample_weight). All shards have the same number of steps.
    checkpoints : list, or dict by name, of paths or weights, optional
        Keras: `.keras`, `.weights.h5`, lists of arrays. torch: `.pt`, `.pth`, `.ckpt`, `.safetensors`, state
        dicts. Flax NNX: folders of Orbax, states. Equinox: files of `tree_serialise_leaves`, models. By
        default the weights that the model has.
    quantities : "summary" or "timestep"
        "summary" keeps quantiles over samples, in a size that does not grow with the data. "timestep" keeps
        norms of each sample at each timestep, exactly; `shard` has the number of each sample's shard.
    layers, loss : see `capture`
    to : path-like
        Folder of the sweep. The result is the run `run.zarr` in it.
    executor : object with `submit`, optional
        `concurrent.futures.ProcessPoolExecutor`, loky's, `dask.distributed.Client(…).get_executor()`,
        submitit's. All its workers read and write the folder. By default one task follows another here.
    dependency_length : int, optional
        Lag, in timesteps, that the task needs. With it, each task also measures use at this lag, in ten to
        forty passes forward.
    shard_size : int
        Samples a shard, of arrays.

    Returns
    -------
    DataTree
        As `open_run` returns it: `step` counts the checkpoints; their names are in the coordinate
        `checkpoint`, by which a variable's `.sel(checkpoint=…)` selects. `diagnose`, `report` and
        `plots.training` take it. Each layer has the variables of a monitor at this level; with
        `dependency_length` also `use` (lag) and its 95 % interval over all samples, NaN at other lags.

    Raises
    ------
    UnsupportedModelError, LayerNotFoundError, LossError
        No adapter supports the model; it has no layer of this name; `loss` is no loss.
    BatchError
        Shards differ in more than their samples, such as in the number of steps.
    SweepError
        There is no data, the model cannot be sent to workers, the folder holds another sweep, the executor
        breaks, or every task fails.
    StoreError
        The folder cannot be written.

    Warns
    -----
    ThroughTimeWarning
        Some tasks failed; the attribute `failed` of the result names them.

    Examples
    --------
    >>> import tempfile, torch
    >>> gru, x, y = torch.nn.GRU(2, 3, batch_first=True), torch.ones(8, 5, 2), torch.zeros(8, 3)
    >>> loss = lambda output, y: torch.nn.functional.mse_loss(output[0][:, -1], y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tree = sweep(gru, (x, y), loss=loss, to=f"{folder}/sweep", shard_size=4)
    ...     tree["gru"]["lag_ratio_samples"].values.tolist()
    [[8, 8, 8, 8, 8]]
    """
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise SweepError(f"executor= needs a method submit; a {type(executor).__name__} has none.")
    if not makes_model(model):
        Probe(model, loss=loss, layers=layers)  # raises what every task would
    folder = Path(to).absolute()  # workers may run elsewhere
    named = _named(checkpoints)
    shards = shards_of(data, shard_size, folder, spool=executor is not None)
    job = Job(model, loss, layers, named, shards.loads, dependency_length, quantities)
    _specify(folder, job, shards.identity)
    if _has_tasks(folder):
        with Passes(len(named) * len(shards.loads), "Sweep") as bar, Result(folder, quantities) as result:
            failures = run(job, folder, executor, bar.advance, result.add)
            result.complete(failures)
        (folder / JOB).unlink(missing_ok=True)
        for name in () if failures else (PARTS, DATA):  # tasks that failed may be repeated
            shutil.rmtree(folder / name, ignore_errors=True)
    tree = open_sweep(folder)
    if failed := json.loads(tree.attrs["failed"]):
        first = failed[0]
        warn(
            f"Tasks of the sweep that failed: {len(failed)}. The first is shard {first['shard']} of "
            f"{first['checkpoint']}: {first['error']}. Sweep again to repeat them."
        )
    return tree


@takes(SweepError)
def open_sweep(path: str | os.PathLike[str]) -> xr.DataTree:
    """Open a sweep lazily, as `open_run` opens a run.

    Parameters
    ----------
    path : path-like
        Folder of the sweep.

    Returns
    -------
    DataTree
        One step a checkpoint, with names in the coordinate `checkpoint`. The attribute `failed` lists the
        tasks that failed, as JSON.

    Raises
    ------
    SweepError
        The folder holds no sweep, or one that is not finished.
    StoreError
        The result is damaged.

    Examples
    --------
    >>> open_sweep("nowhere")
    Traceback (most recent call last):
    throughtime._errors.SweepError: nowhere holds no sweep.
    """
    folder = Path(path)
    if not (folder / SPECIFICATION).exists():
        raise SweepError(f"{folder} holds no sweep.")
    if not (folder / RUN).exists():
        raise SweepError(f"The sweep in {folder} is not finished. Call sweep again to continue it.")
    tree = open_run(folder / RUN)
    names = xr.DataArray(json.loads(tree.attrs["checkpoints"]), dims="step")
    for node in tree.subtree:
        if "step" in node.dims:
            named = node.to_dataset(inherit=False).assign_coords(checkpoint=names)
            node.dataset = named.set_xindex("checkpoint")
    return tree


def _named(checkpoints: Any) -> list[tuple[str, Any]]:
    if checkpoints is None:
        return [("current", None)]
    if isinstance(checkpoints, Sequence) and not isinstance(checkpoints, str):
        are_files = all(isinstance(each, (str, os.PathLike)) for each in checkpoints)
        names = _short([Path(each) for each in checkpoints]) if are_files else range(len(checkpoints))
        checkpoints = dict(zip(names, checkpoints, strict=True))
    if not isinstance(checkpoints, Mapping):
        raise SweepError(f"checkpoints= is a list or a dict, not a {type(checkpoints).__name__}.")
    if not checkpoints:
        raise SweepError("checkpoints= is empty. Leave it out for the weights that the model has.")
    # A state dict holds the model's own tensors, which loading another checkpoint would overwrite.
    found = [
        (
            str(name),
            Path(source).absolute() if isinstance(source, (str, os.PathLike)) else copy.deepcopy(source),
        )
        for name, source in checkpoints.items()
    ]
    missing = [path for _, path in found if isinstance(path, Path) and not path.exists()]
    if missing:
        raise SweepError(f"There is no checkpoint {missing[0]}.")
    return found


def _short(paths: list[Path]) -> list[str]:
    """Name files: by their names, or by their places below a common folder if two have the same name."""
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    above = os.path.commonpath([path.absolute().parent for path in paths])
    return [path.absolute().relative_to(above).as_posix() for path in paths]


def _specify(folder: Path, job: Job, data: Any) -> None:
    """Write what the sweep is, or refuse a folder that holds another one."""
    specification = {
        "checkpoints": [[name, _state_of(source, job.model)] for name, source in job.checkpoints],
        "data": data,
        "layers": job.layers if isinstance(job.layers, (str, int)) else str(job.layers),
        "loss": content_of(getattr(job.model, "loss", None) if job.loss is None else job.loss),
        "quantities": job.level,
        "dependency_length": job.lag,
        "throughtime": __version__,
    }
    path = folder / SPECIFICATION
    if not path.exists():
        if folder.is_file() or (folder.is_dir() and {each.name for each in folder.iterdir()} - {DATA}):
            raise SweepError(f"{folder} holds other files. Pass a new or empty folder in to=.")
        written(path, json.dumps(specification, indent=1).encode())
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    differing = [name for name, value in specification.items() if before.get(name) != value]
    if differing:
        raise SweepError(
            f"{folder} holds another sweep, which differs in {', '.join(differing)}. Pass another folder."
        )


def _state_of(source: Any, model: Any) -> Any:
    """Describe a checkpoint, so that another one of its name is noticed."""
    if isinstance(source, Path):
        found = source.stat()
        return [found.st_size, found.st_mtime_ns]
    weights = model if source is None else source
    return None if makes_model(weights) else weights_fingerprint(weights)


def _has_tasks(folder: Path) -> bool:
    """Whether there is something to do: no result yet, or tasks that failed."""
    return not (folder / RUN).exists() or json.loads(open_run(folder / RUN).attrs["failed"]) != []
