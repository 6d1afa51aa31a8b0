"""The command `throughtime`: reads runs on disk, from a shell.

Exit codes: 0 for success; 1 for an error, printed in one line, or a failed check; 2 for a wrong command. With
`diagnose --fail-on`: 0 for no finding, 1 for a finding, 2 for undecided or an error.
"""

from __future__ import annotations

import json
import os
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

import throughtime as tt
from throughtime._common.text.printable import printable
from throughtime._common.text.tables import Table, as_rich
from throughtime._tree import at_place, place_of, recorded_steps
from throughtime.diagnosis.fail_on import UNDECIDED, exit_code, names_of
from throughtime.diagnostics.alarm import alarms_of_run

from . import doctor as environment
from . import pictures
from .export import export as write_export
from .overview import overview, runs_below
from .runs import attributes_of_run, complaints, in_words

if TYPE_CHECKING:
    from throughtime._pages.live import Server

PORT = 5006
_LONG = ("model_summary", "model_config", "model_layers")  # attributes of a run

app = typer.Typer(
    help="See what flows through time inside recurrent networks.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console(highlight=False)

RunPath = Annotated[Path, typer.Argument(help="Folder of a run that a monitor records.")]
Layer = Annotated[str | None, typer.Option(help="Path of the layer; by default the only one.")]
Step = Annotated[int | None, typer.Option(help="Training step; by default the last recorded one.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="File to write.")]
Second = Annotated[Path | None, typer.Option("--with", help="For compare: a second run.")]
FailOn = Annotated[
    str | None,
    typer.Option(
        help="Findings: vanishing,unstable,nonfinite,misread. Exit code 1 if there is one, 2 if undecided."
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print everything.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for a script.")]


def _print_version(asked: bool) -> None:
    if asked:
        console.print(f"throughtime {tt.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """See what flows through time inside recurrent networks."""


@app.command()
def info(run: RunPath, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """Print a summary of a run: model, steps, duration, loss, horizons, alarms and size."""
    with printed_errors():
        tree = tt.open_run(run)
        if not as_json:
            console.print(*as_rich(*overview(tree, run)))
        if not (as_json or verbose):
            return
        recorded, alarms = recorded_steps(tree), alarms_of_run(tree.attrs)
        found: dict[str, Any] = {
            "path": str(run),
            "steps": len(recorded),
            "first_step": recorded[0] if recorded else None,
            "last_step": recorded[-1] if recorded else None,
            "bytes_uncompressed": int(tree.nbytes),
            "layers": {leaf.path.strip("/"): sorted(map(str, leaf.data_vars)) for leaf in tree.leaves},
            "training_loop": sorted(map(str, tree.data_vars)),
            **attributes_of_run(tree),
            "alarms": [vars(alarm) for alarm in alarms],
        }
    if as_json:
        print(json.dumps(found, indent=1))  # noqa: T201 - for a script, without a terminal's colours
        return
    shown = [name for name in found if name not in ("layers", "training_loop", "alarms", *_LONG)]
    rows = tuple((name.replace("_", " "), in_words(found[name])) for name in shown)
    console.print(*as_rich(Table(rows)))
    if summary := found.get("model_summary"):
        console.print(f"\n{printable(summary)}\n", markup=False)
    for layer, variables in {**found["layers"], "training loop": found["training_loop"]}.items():
        if variables:
            console.print(f"\n{printable(layer)}: {printable(', '.join(variables))}", markup=False)


@app.command("ls")
def list_runs(folder: Annotated[Path, typer.Argument(help="Folder to look in, and below.")] = Path()) -> None:
    """List the runs in a folder: records, loss, alarms, last record."""
    with printed_errors():
        found = runs_below(folder)
    if not found.rows:
        console.print(f"There is no run in {printable(str(folder))}.", markup=False)
        return
    console.print(*as_rich(found))


@app.command()
def check(run: RunPath) -> None:
    """Read everything once, and list steps that cannot be read, failed certificates, and NaN."""
    with printed_errors():
        found = list(complaints(run))
    for complaint in found:
        console.print(printable(complaint), markup=False)
    if found:
        raise typer.Exit(1)
    with printed_errors():
        console.print(f"{len(recorded_steps(tt.open_run(run)))} steps, all whole.")


@app.command()
def diagnose(
    run: RunPath,
    step: Step = None,
    dependency_length: Annotated[int | None, typer.Option(help="Lag that the task needs, in steps.")] = None,
    as_json: AsJson = False,
    fail_on: FailOn = None,
    verbose: Verbose = False,
) -> None:
    """Print the verdict for a run's last record, or for one step."""
    with printed_errors(code=1 if fail_on is None else UNDECIDED):
        names = () if fail_on is None else names_of(fail_on)
        if "vanishing" in names and dependency_length is None:
            raise tt.ArgumentError("--fail-on vanishing needs --dependency-length, the lag to judge.")
        found = tt.diagnose(tt.open_run(run), step=step, dependency_length=dependency_length)
    if as_json:
        print(json.dumps(found.to_dict(), indent=1, allow_nan=False))  # noqa: T201
    elif verbose:
        console.print(found)
    else:
        console.print(found.brief)
        console.print("\nWith --verbose: intervals, evidence, and how training got there.")
    if code := exit_code(found, names):
        raise typer.Exit(code)


@app.command()
def watch(
    run: RunPath,
    port: Annotated[
        int | None, typer.Option(help="Port of the page; by default 5006 or the next free one; 0 for any.")
    ] = None,
    opens: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
) -> None:
    """Follow a run on a page while it grows, until Ctrl-C; wait for a run that does not exist yet."""
    from throughtime._pages.live import Server  # noqa: PLC0415 - drawing libraries load late

    with printed_errors():
        server = Server(run, port) if port is not None else _at_next_port(run)
        console.print(f"{run} is shown at {server.url}, on this machine only. Ctrl-C ends it.")
        if opens:
            webbrowser.open(server.url)
        server.wait()


def _at_next_port(run: Path) -> Server:
    """Serve at the first free port from 5006."""
    from throughtime._pages.live import Server  # noqa: PLC0415 - drawing libraries load late

    for port in range(PORT, PORT + 20):
        try:
            return Server(run, port)
        except tt.MonitorError:
            continue
    return Server(run, 0)


@app.command()
def plot(  # noqa: PLR0913, PLR0917 - options, one a line
    run: RunPath,
    name: Annotated[str | None, typer.Argument(help="Name of a plot: evolution, heatmap, …")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write.")] = None,
    layer: Layer = None,
    step: Step = None,
    quantity: Annotated[str | None, typer.Option(help="Variable to draw.")] = None,
    second: Second = None,
    lists: Annotated[
        bool, typer.Option("--list", help="List the plots, with the level that each needs.")
    ] = False,
    opens: Annotated[bool, typer.Option("--open", help="Open the file; by default RUN_NAME.html.")] = False,
) -> None:
    """Draw one plot of a run into a png, svg, pdf or html file."""
    if not lists and (name is None or (output is None and not opens)):
        raise typer.BadParameter("pass a plot and a file: plot RUN NAME -o FILE; or plot RUN --list.")
    with printed_errors():
        tree = tt.open_run(run)
        if name is None or lists:
            console.print(*as_rich(pictures.table_of_plots(tree)))
            return
        drawn = pictures.draw(tree, name, layer=layer, step=step, quantity=quantity, second=second)
        written = tt.save(drawn, output or Path(f"{run.stem}_{name}.html"))
    console.print(f"{written} is written.")
    if opens:
        webbrowser.open(Path(written).resolve().as_uri())


@app.command()
def report(run: RunPath, output: Output, step: Step = None) -> None:
    """Write one offline html page of a run, or of one step of it."""
    with printed_errors():
        tree = tt.open_run(run)
        path = tt.report(
            tree if step is None else at_place(tree, place_of(recorded_steps(tree), step)), output
        )
    console.print(f"{path} is written.")


@app.command()
def compare(first: RunPath, second: RunPath, as_json: AsJson = False) -> None:
    """Compare the diagnoses of the last steps of two runs."""
    with printed_errors():
        found = tt.compare(*(tt.diagnose(tt.open_run(run)) for run in (first, second)))
    if as_json:
        print(found.to_dataframe().to_json(orient="records"))  # noqa: T201
    else:
        console.print(found)


@app.command()
def export(
    run: RunPath,
    output: Output,
    to: Annotated[
        str | None, typer.Option(help="zarr, netcdf, npz, parquet or csv; by default selected by the ending.")
    ] = None,
) -> None:
    """Write a run in another format: zarr packs it into few files; parquet and csv have up to two dims."""
    with printed_errors():
        write_export(run, output, to)
    console.print(f"{output} is written.")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Print what this environment can capture, and the versions of its libraries."""
    if as_json:
        print(json.dumps(environment.as_json(), indent=1))  # noqa: T201
        return
    for part in environment.tables():
        console.print(*as_rich(part), "")


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Folder for the plots.")] = Path("demo"),
    framework: Annotated[str, typer.Option(help="keras, torch or tf_keras.")] = "keras",
    backend: Annotated[str | None, typer.Option(help="Backend of Keras 3: tensorflow, jax or torch.")] = None,
    verbose: Verbose = False,
) -> None:
    """Train small networks on digits and draw them."""
    if framework not in ("keras", "torch", "tf_keras") or (backend and framework != "keras"):
        raise typer.BadParameter("--framework must be keras, torch or tf_keras; only keras takes --backend.")
    if backend not in (None, "tensorflow", "jax", "torch"):
        raise typer.BadParameter("--backend must be tensorflow, jax or torch.")
    if backend:
        os.environ["KERAS_BACKEND"] = backend  # Keras reads it once, when it is imported
    import_module("throughtime._cli.demo.run").main(folder, framework, is_verbose=verbose)


@contextmanager
def printed_errors(code: int = 1) -> Iterator[None]:
    """Print errors of this library and of the file system without a traceback."""
    try:
        yield
    except (tt.ThroughTimeError, OSError) as error:
        console.print(Text(printable(str(error)), "red"))
        raise typer.Exit(code) from None
