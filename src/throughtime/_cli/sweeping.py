"""The command `throughtime sweep`: functions of a script are captured over a data set and checkpoints."""

import multiprocessing
import runpy
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from typing import Annotated, Any

import typer

import throughtime as tt
from throughtime._errors import MissingDependencyError, SweepError, did_you_mean
from throughtime._tree import recorded_steps

from .commands import app, console, printed_errors

_EXIT_FAILED = 1


@app.command("sweep")
def sweep(  # noqa: PLR0913, PLR0917 - options, one a line
    model: Annotated[str, typer.Argument(help="SCRIPT:function; the function makes the model.")],
    data: Annotated[str, typer.Option(help="SCRIPT:function; it returns data as tt.sweep takes it.")],
    checkpoints: Annotated[str | None, typer.Option(help="Pattern of files, 'ckpt/*.keras'.")] = None,
    loss: Annotated[str | None, typer.Option(help="SCRIPT:function; Keras models bring their own.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("sweep"),
    workers: Annotated[int, typer.Option(help="Processes; 1 works in this one.")] = 1,
    scheduler: Annotated[str | None, typer.Option(help="Address of a dask scheduler, tcp://…")] = None,
    lag: Annotated[int | None, typer.Option(help="Lag that the task needs.")] = None,
) -> None:
    """Capture a whole data set at one checkpoint or many; exit code 1 if a task failed."""
    with printed_errors():
        named = None if checkpoints is None else sorted(map(Path, glob(checkpoints)))
        if named == []:
            raise SweepError(f"No file matches {checkpoints}.")
        with _executor(workers, scheduler) as executor:
            found = tt.sweep(
                _function(model),
                _function(data)(),
                checkpoints=named,
                loss=None if loss is None else _function(loss),
                to=output,
                executor=executor,
                dependency_length=lag,
            )
        names = next(iter(found.leaves)).to_dataset()["checkpoint"].values
        for step, name in zip(recorded_steps(found), names, strict=True):
            verdict = tt.diagnose(found, step=step, dependency_length=lag)
            console.print(f"{name}: {verdict.text.splitlines()[0]}", markup=False)
    console.print(f"{output} is written.")
    if found.attrs["failed"] != "[]":
        raise typer.Exit(_EXIT_FAILED)


def _function(place: str) -> Any:
    script, _, name = place.rpartition(":")
    if not script or not Path(script).is_file():
        raise SweepError(f"{place}: expected SCRIPT:function, with the path of a Python file.")
    names = runpy.run_path(script)
    if not callable(names.get(name)):
        raise SweepError(f"{script} has no function {name}.{did_you_mean(name, names)}")
    return names[name]


@contextmanager
def _executor(workers: int, scheduler: str | None) -> Iterator[Any]:
    if scheduler is not None:
        try:
            from distributed import Client  # noqa: PLC0415 - optional
        except ImportError as error:
            raise MissingDependencyError("Run pip install 'throughtime[sweep]' for --scheduler.") from error
        with Client(scheduler) as client:
            yield client.get_executor()
    elif workers > 1:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield pool
    else:
        yield None
