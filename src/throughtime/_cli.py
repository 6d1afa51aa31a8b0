"""The command `throughtime`: looks at runs on disk, from a shell.

Exit codes: 0, all well; 1, an error that is told in one line, or a check that found something; 2, a command
that was written wrongly.
"""

from __future__ import annotations

import json
import platform
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FunctionType
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
import xarray as xr
from rich.console import Console
from rich.table import Table

import throughtime as tt
from throughtime.diagnostics.checks import certified

_LIBRARIES = ("numpy", "xarray", "scipy", "matplotlib", "bokeh", "zarr", "dask")
_FRAMEWORKS = ("keras", "tensorflow", "jax", "torch", "tf_keras")
_OF_STATES = ("hidden_gradient", "hidden_gradient_norm")

app = typer.Typer(help="See what flows through time inside recurrent networks.", no_args_is_help=True)
console = Console(highlight=False)

RunPath = Annotated[Path, typer.Argument(help="Folder of a run, as a monitor records it.")]
Layer = Annotated[str | None, typer.Option(help="Path of the layer; by default the only one.")]
Step = Annotated[int | None, typer.Option(help="Training step; by default the last that was recorded.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="File to write.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for a script.")]


@app.command()
def info(run: RunPath, as_json: AsJson = False) -> None:
    """Tell what a run holds: model, steps, layers, size."""
    with _told():
        tree = tt.open_run(run)
        steps = _steps(tree)
        found: dict[str, Any] = {
            "path": str(run),
            "steps": len(steps),
            "first_step": steps[0] if steps else None,
            "last_step": steps[-1] if steps else None,
            "bytes_uncompressed": int(tree.nbytes),
            "layers": {leaf.path.strip("/"): sorted(map(str, leaf.data_vars)) for leaf in tree.leaves},
            **{str(name): value for name, value in tree.attrs.items() if name != "n_steps"},
        }
    if as_json:
        print(json.dumps(found, indent=1))  # noqa: T201 - for a script, without a terminal's colours
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in found.items():
        if name != "layers":
            table.add_row(name.replace("_", " "), str(value))
    console.print(table)
    for layer, variables in found["layers"].items():
        console.print(f"\n{layer}: {', '.join(variables)}")


@app.command()
def check(run: RunPath) -> None:
    """Read everything once, and look for steps that cannot be read, failed certificates, and NaN."""
    with _told():
        tree = tt.open_run(run)
        complaints = list(_complaints(tree))
    for complaint in complaints:
        console.print(complaint)
    if complaints:
        raise typer.Exit(1)
    console.print(f"{len(_steps(tree))} steps, all whole.")


@app.command()
def diagnose(
    run: RunPath,
    step: Step = None,
    dependency_length: Annotated[int | None, typer.Option(help="Lag that the task needs, in steps.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what one recorded step, stored in full, tells of long-term dependencies."""
    with _told():
        found = tt.diagnose(_at(tt.open_run(run), step), dependency_length=dependency_length)
    if as_json:
        print(json.dumps(found.to_dict(), indent=1, default=str))  # noqa: T201
    else:
        console.print(found)


@app.command()
def plot(
    run: RunPath,
    picture: Annotated[str, typer.Argument(help="Name of a picture: evolution, heatmap, gates, …")],
    output: Output,
    layer: Layer = None,
    step: Step = None,
    quantity: Annotated[str | None, typer.Option(help="Variable to draw.")] = None,
) -> None:
    """Draw one picture of a run into a png, svg, pdf or html file."""
    with _told():
        if not _is_picture(picture):
            names = ", ".join(name for name in sorted(vars(tt.plots)) if _is_picture(name))
            raise tt.PictureError(f"There is no picture {picture!r}. There are: {names}.")
        tree = tt.open_run(run)
        whole = tree if picture == "evolution" else _at(tree, step)
        drawn: Any = whole if layer is None and picture == "gradient_flow" else _layer(whole, layer)
        if quantity is not None or picture == "evolution":
            drawn = _quantity(drawn, quantity)
        tt.save(getattr(tt.plots, picture)(drawn), output)
    console.print(f"{output} is written.")


@app.command()
def report(run: RunPath, output: Output, step: Step = None) -> None:
    """Write one offline html page of a run, or of one step of it."""
    with _told():
        tree = tt.open_run(run)
        path = tt.report(tree if step is None else _at(tree, step), output)
    console.print(f"{path} is written.")


@app.command()
def compare(first: RunPath, second: RunPath, as_json: AsJson = False) -> None:
    """Put the diagnoses of two runs' last steps side by side."""
    with _told():
        found = tt.compare(*(tt.diagnose(_at(tt.open_run(run), None)) for run in (first, second)))
    if as_json:
        print(found.to_dataframe().to_json(orient="records"))  # noqa: T201
    else:
        console.print(found)


@app.command()
def export(
    run: RunPath,
    output: Output,
    to: Annotated[str, typer.Option(help="netcdf, npz or parquet.")] = "npz",
) -> None:
    """Write a run's arrays into files of another format; parquet holds numbers with at most two dims."""
    with _told():
        tree = tt.open_run(run)
        writers = {"npz": _to_npz, "parquet": _to_parquet, "netcdf": _to_netcdf}
        if to not in writers:
            raise tt.StoreError(f"--to {to}: there are {', '.join(writers)}.")
        writers[to](tree, output)
    console.print(f"{output} is written.")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Tell which frameworks and libraries are there, and in which versions."""
    names = ("throughtime", *_LIBRARIES, *_FRAMEWORKS)
    found = {"python": platform.python_version(), **{name: _version(name) for name in names}}
    if as_json:
        print(json.dumps(found, indent=1))  # noqa: T201
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, number in found.items():
        table.add_row(name, number or "not installed")
    console.print(table)
    if not any(found[name] for name in ("keras", "torch", "tf_keras")):
        console.print("No framework is there: pip install 'throughtime[tensorflow]', or [jax], [torch].")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def demo(context: typer.Context) -> None:
    """Train small networks on digits and draw them; options as of scripts/demo."""
    sys.argv = ["throughtime demo", *context.args]
    runpy.run_module("throughtime._demo", run_name="__main__", alter_sys=False)


@contextmanager
def _told() -> Iterator[None]:
    """Tell an error of ours in its own words, without a traceback."""
    try:
        yield
    except tt.ThroughTimeError as error:
        console.print(str(error), style="red")
        raise typer.Exit(1) from None


def _steps(tree: xr.DataTree) -> list[int]:
    return [int(step) for step in tree.coords["step"].values] if "step" in tree.coords else []


def _at(tree: xr.DataTree, step: int | None) -> xr.DataTree:
    """Take one recorded step, the last by default."""
    steps = _steps(tree)
    if not steps:
        raise tt.StoreError("The run holds no step yet.")
    if step is not None and step not in steps:
        nearest = min(steps, key=lambda each: abs(each - step))
        raise tt.StoreError(f"Step {step} was not recorded; the nearest is {nearest}, of {len(steps)}.")
    place = len(steps) - 1 if step is None else steps.index(step)
    leaves = {leaf.path: leaf.to_dataset().isel(step=place).drop_vars("step").load() for leaf in tree.leaves}
    found = xr.DataTree.from_dict(leaves)
    found.attrs.update(tree.attrs)
    return found


def _layer(tree: xr.DataTree, path: str | None) -> xr.DataTree:
    leaves = {leaf.path.strip("/"): leaf for leaf in tree.leaves}
    if path is None and len(leaves) == 1:
        return next(iter(leaves.values()))
    if path is None or path not in leaves:
        raise tt.LayerNotFoundError(f"--layer is one of {', '.join(leaves)}.")
    return leaves[path]


def _quantity(layer: xr.DataTree, name: str | None) -> xr.DataArray:
    """Take one variable; of norms stored as quantiles the median."""
    asked = (name,) if name else _OF_STATES
    found = next((each for each in asked if each in layer.data_vars), None)
    if found is None:
        raise tt.SchemaError(
            f"There is no {' or '.join(asked)}; it has {', '.join(map(str, layer.data_vars))}."
        )
    array: xr.DataArray = layer[found]  # type: ignore[assignment]
    return array.sel(quantile=0.5, drop=True) if "quantile" in array.dims else array


def _is_picture(name: str) -> bool:
    return name.islower() and isinstance(getattr(tt.plots, name, None), FunctionType)


def _complaints(tree: xr.DataTree) -> Iterator[str]:
    """Yield what is wrong: arrays that cannot be read, certificates above their bars, the first NaN."""
    for key, array in _arrays(tree):
        try:
            array.load()
        except Exception as error:  # zarr, its codecs and the file system each have their own
            yield f"{key} cannot be read: {type(error).__name__}: {error}"
            return
    for leaf in tree.leaves:
        try:
            certified(leaf)
        except tt.DiagnosticError as error:
            yield str(error)
    if (broken := tt.diagnostics.first_nonfinite(tree)) is not None:
        yield str(broken)


def _to_npz(tree: xr.DataTree, output: Path) -> None:
    arrays: dict[str, Any] = {key: array.values for key, array in _arrays(tree)}
    np.savez_compressed(output, step=np.asarray(_steps(tree)), **arrays)


def _arrays(tree: xr.DataTree) -> Iterator[tuple[str, xr.DataArray]]:
    """Yield every variable by its path."""
    for leaf in tree.leaves:
        for name, array in leaf.data_vars.items():
            yield f"{leaf.path}/{name}".strip("/"), array


def _to_netcdf(tree: xr.DataTree, output: Path) -> None:
    _needs("h5netcdf", "netcdf")
    tree.to_netcdf(output, engine="h5netcdf")


def _to_parquet(tree: xr.DataTree, output: Path) -> None:
    _needs("pyarrow", "parquet")
    columns: dict[str, Any] = {}
    for key, array in _arrays(tree):
        if array.ndim == 1:
            columns[key] = array.values
        elif array.ndim == 2:
            columns.update({f"{key}/{place}": array.values[:, place] for place in range(array.shape[1])})
    pd.DataFrame(columns, index=pd.Index(_steps(tree), name="step")).to_parquet(output)


def _needs(library: str, extra: str) -> None:
    if _version(library) is None:
        raise tt.MissingDependencyError(f"This needs {library}: pip install 'throughtime[{extra}]'.")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    app()
