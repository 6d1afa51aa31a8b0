"""Runs the demo: trains the networks, draws them, and prints what was measured."""

import time
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import xarray as xr
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import throughtime as tt
from throughtime._cli.demo.networks import HALF, STEPS, framework
from throughtime._cli.demo.pictures import NOT_MIRRORED, draw
from throughtime._cli.demo.training import EARLY, JUDGED, SAMPLES, Trained, read_digits, train
from throughtime.diagnosis.brief import facts, headline
from throughtime.diagnosis.results import NOT_MEASURED, steps_of

RUN = "demo_run.zarr"
FILES = {
    "report.html": "the LSTM's report: verdict, next actions, training, layer by layer",
    RUN: "its run: throughtime watch, info, diagnose or plot reads it",
    "1_early.png, 2_late.png": f"the LSTM's gradient by timestep, after {EARLY} iterations and at the end",
    "3_kinds.png": "LSTM, GRU and SimpleRNN on one digit",
    "4_bidirectional.png": NOT_MIRRORED,
    "5_overview.png": "the LSTM in one figure, after training",
    "6_evolution.png": "the LSTM's reach by lag while it trained, a row for each record",
}
MEANING = (
    f"Measured on {SAMPLES} test digits. Reach: gradient {HALF} steps back, as a share of that at the last "
    "step. Use: share of the answer that rests on pixels that old, which are exchanged between digits to "
    "measure it. Horizon: largest lag at which 1 % of the gradient arrives, in the layer and direction where "
    f"it is smallest; at most {STEPS - 1}. The networks train for different times: compare each with itself. "
    "Guessing gives 10 % right answers."
)
ITERATIONS = {"LSTM": 1000, "GRU": 500, "SimpleRNN": 500, "Bidirectional GRU": 300}


def main(folder: Path, name: str, *, is_verbose: bool = False) -> None:
    """Train, draw, and print the results."""
    started = time.monotonic()
    mpl.use("agg")
    console = Console()
    folder.mkdir(parents=True, exist_ok=True)
    title, build = framework(name)
    console.print(
        f"Training in {title}, on digits of {STEPS} pixels, one a step: half lie {HALF} or more steps back."
    )
    digits = read_digits()
    columns = (TextColumn("{task.description:>18}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        settings = (digits, progress, folder / RUN)
        trained = {kind: train(build, kind, count, *settings) for kind, count in ITERATIONS.items()}
    with console.status("Drawing …"):
        draw(trained, folder)
    judged = trained[JUDGED]
    found = judged.diagnoses[ITERATIONS[JUDGED]]
    title = "An LSTM that reads digits"
    tt.report(judged.late, folder / "report.html", diagnosis=found, training=judged.run, title=title)
    for iteration, found in judged.diagnoses.items():
        when = f"after {iteration} iterations" if iteration else "before training"
        console.print(f"\n{judged.name} {when}: {headline(found)}", highlight=False)
        measured = ", ".join(f"{fact.name.lower().split()[0]} {fact.value}" for fact in facts(found))
        measured = f"{measured} ({facts(found)[-1].detail})"
        console.print(found if is_verbose else f"  {measured}", highlight=False)
    if is_verbose and judged.run is not None:
        console.print(tt.diagnose(judged.run, dependency_length=HALF))
    console.print("", compared(list(trained.values())), MEANING, highlight=False)
    plots, seconds = len(list(folder.glob("*.png"))), time.monotonic() - started
    console.print(f"\nIn {folder}, {plots} plots and a report, made in {seconds:.0f} s:", highlight=False)
    for file, words in FILES.items():
        console.print(f"  {file:<31}{words}", highlight=False, soft_wrap=True)


def compared(networks: Sequence[Trained]) -> Table:
    """Tabulate iterations, accuracy, and the horizon before and after training."""
    heads = ("network", "iterations", "right answers", "horizon before", "horizon after")
    table = Table(*heads, box=None, padding=(0, 2, 0, 0))
    for trained in networks:
        ends = [horizon(trained.captures[0]), horizon(trained.late)]
        table.add_row(trained.name, str(max(trained.captures)), f"{trained.accuracy:.0%}", *ends)
    return table


def horizon(tree: xr.DataTree) -> str:
    """Write the shortest horizon of all layers and directions."""
    texts = [layer.horizon for layer in tt.diagnose(tree, dependency_length=HALF).layers.values()]
    known = [text for text in texts if text != NOT_MEASURED]
    return min(known, key=steps_of, default=NOT_MEASURED)
