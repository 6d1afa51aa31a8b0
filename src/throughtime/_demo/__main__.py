"""Starts the demo: `python -m throughtime._demo [FOLDER] [--framework NAME] [--backend NAME]`."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import throughtime as tt
from throughtime._demo.frameworks import framework
from throughtime._demo.pictures import draw
from throughtime._demo.tables import brief, print_all
from throughtime._demo.training import JUDGED, as_run, read_digits, train

RUN = "demo_run.zarr"
ITERATIONS = {"LSTM": 1000, "GRU": 500, "SimpleRNN": 500, "Bidirectional GRU": 300}


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo", description="Train small networks and draw them.")
    parser.add_argument("folder", nargs="?", default="demo", type=Path, help="folder of the plots")
    parser.add_argument("--framework", choices=["keras", "torch", "tf_keras"], default="keras")
    parser.add_argument("--backend", choices=["tensorflow", "jax", "torch"], help="of Keras 3")
    parser.add_argument("--verbose", action="store_true", help="print all tables, and how to read them")
    chosen = parser.parse_args(arguments)
    if chosen.backend and chosen.framework != "keras":
        parser.error(f"--backend is for Keras 3; {chosen.framework} has none to choose.")
    return chosen


def main(folder: Path, name: str, *, is_verbose: bool = False) -> None:
    """Train, draw, and print the results."""
    started = time.monotonic()
    mpl.use("agg")
    console = Console()
    folder.mkdir(parents=True, exist_ok=True)
    chosen = framework(name)
    console.print(f"Training in {chosen.title}.")
    digits = read_digits()
    columns = (TextColumn("{task.description:>18}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        settings = (digits, progress, folder / RUN)
        trained = {kind: train(chosen, kind, count, *settings) for kind, count in ITERATIONS.items()}
    console.print("Drawing …")
    draw(trained, folder)
    judged = trained[JUDGED]
    tt.report(
        as_run(judged),
        folder / "report.html",
        diagnosis=judged.diagnoses[ITERATIONS[JUDGED]],
        training=judged.run,
        title="An LSTM that reads digits",
    )
    if is_verbose:
        print_all(list(trained.values()), console)
    brief(list(trained.values()), folder, console)
    pictures = len(list(folder.glob("*.png")))
    console.print(f"{pictures} plots in all, made in {time.monotonic() - started:.0f} s.")


if __name__ == "__main__":
    asked = options()
    if asked.backend:
        os.environ["KERAS_BACKEND"] = asked.backend  # Keras reads it once, when it is imported
    main(asked.folder, asked.framework, is_verbose=asked.verbose)
