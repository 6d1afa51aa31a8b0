"""Calls every public function and command with odd arguments; counts errors that come from deep inside.

`python -m benchmarks.faults.bad_arguments [10000] [seed]`: so many calls, made from the signatures, so that
a new function is called by itself. A call may work, raise a `ThroughTimeError`, or raise what an object of
the caller's raises itself. The model and the data stay as they were, and no half-written file is left. The
test suite makes a few hundred of these calls.
"""

from __future__ import annotations

import inspect
import os
import random
import re
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import xarray as xr
from torch import nn
from typer.testing import CliRunner

import throughtime as tt
from throughtime._cli import app
from throughtime._store import Run

from .odd_values import AskedError, odd_values

HOMES = {f"{name}.": getattr(tt, name) for name in ("plots", "diagnostics", "testing", "picture")} | {"": tt}
NOT_PUBLIC = ("_inputs", "rules", "closed_forms", "_vocabulary", "_tree")
NOT_CALLED = ("Difference", "Look", "NonFinite", "Leak", "Interactive")
TREES = ("captured", "layer", "run", "first", "second", "tree_or_run")
LOOK = tuple(tt.plots.Look.__annotations__)
RARE = {"report": 0.1, "diagnose": 0.3, "save": 0.3, "Monitor": 0.3, "lag_matrix": 0.5}  # they take long
COMMANDS = ("info", "check", "diagnose", "plot", "report", "compare", "export")
OPTIONS = ("--layer", "--step", "--quantity", "--with", "-o", "--to", "--json", "--dependency-length")
WORDS = ("", "x" * 300, "-1", "no/such/x.png", "run.npz", "\x1b[31m", "[/red]", "é\u2028", "nan", "rnn")


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def keras_reader() -> Any:
    """Make a Keras model, on torch, that reads the same data; None without Keras."""
    if find_spec("keras") is None:
        return None
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = import_module("keras")
    layers = [keras.Input((6, 3)), keras.layers.GRU(4), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(loss="mse")
    return model


@dataclass(frozen=True)
class Outcome:
    """How a call ended: `problem` is "" where all is well."""

    function: str
    problem: str
    call: str


class World:
    """Good arguments by the names of parameters, odd ones, and a folder to write into."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.folder, self.model = folder, Reader()
        self.x, self.y, self.keras = torch.randn(4, 6, 3), torch.randn(4, 1), keras_reader()
        gated = tt.testing.constant_gates(samples=3, steps=8, units=2)
        leaf, self.run = gated["rnn"], folder / "run.zarr"
        with Run(self.run) as run:
            for step in (0, 10):
                run.append(gated, step)
        others = [tt.testing.bidirectional(samples=3, steps=8, units=2), tt.testing.lag_matrix_of(steps=6)]
        self.trees = [gated, leaf, *others, *cut(leaf.to_dataset())]
        self.odd = [*odd_values(), *(lambda tree=tree: tree for tree in self.trees)]
        found = tt.diagnose(gated)
        data = {"x": self.x, "y": self.y, "input_data": self.x, "labels": self.y, "batch": (self.x, self.y)}
        paths = {"path": folder / "written.png", "store": folder / "monitor.zarr"}
        self.good = {
            **data,
            **paths,
            **dict.fromkeys(("model", "model_or_tree"), self.model),
            **dict.fromkeys(TREES, leaf),
            **dict.fromkeys(("a", "b"), found),
            "run": tt.open_run(self.run)["rnn"],
            "loss": nn.MSELoss(),
            "picture": tt.plots.heatmap(leaf),
            "horizon": tt.diagnostics.memory_horizon(leaf),
            "profile": tt.diagnostics.lag_profile(leaf),
            "source": found.to_dict(),
            "value": torch.ones(2),
            "name": "forget",
            "jacobians": np.ones((1, 2, 2, 2)),
            "decay": [0.5, 0.9],
            "matrix": np.eye(2),
            "layer_class": int,
            "weights": {"kernel": (3, 2)},
            "data": np.ones((2, 5, 3)),
            "steps": 3,
            "lag": 1,
            "features": 3,
            "units": 2,
        }
        line, axis = tt.picture.Line(np.arange(3.0), np.ones(3)), tt.picture.Axis("time")
        points = {"x": np.arange(3.0), "y": np.ones(3), "low": np.zeros(3), "high": np.ones(3)}
        panel = tt.picture.Panel((line,))
        self.parts = {
            "Image": {"values": np.ones((2, 3)), "x": (0.0, 3.0), "y": (0.0, 2.0), "colors": self._colors()},
            **dict.fromkeys(("Line", "Band", "Dots"), points),
            "Rectangles": {"boxes": np.ones((2, 4))},
            "Text": {**points, "words": ("a", "b", "c")},
            "Panel": {"marks": (line,), "x": axis, "y": axis},
            "Slider": {"name": "sample", "words": ("0", "1")},
            "Picture": {"panels": (panel,)},
            "Axis": {},
        }
        self._before = self._state()

    def _colors(self) -> Any:
        return self.good["picture"].marks(tt.picture.Image)[0].colors

    def _state(self) -> bytes:
        arrays = [*self.model.state_dict().values(), self.x, self.y]
        arrays += [each.value.detach() for each in self.keras.variables] if self.keras is not None else []
        return b"".join(array.numpy().tobytes() for array in arrays) + bytes([self.model.training])

    def damage(self) -> str:
        """Say what a call has changed, or left behind."""
        if self._state() != self._before:
            return "the model or its data were changed"
        left = [path.name for path in self.folder.rglob("*.part*")]
        return f"left half-written: {left}" if left else ""


def cut(layer: xr.Dataset) -> Iterator[xr.Dataset]:
    """Yield a layer as people cut it, and as nobody should."""
    for dim in ("sample", "time", "unit", "gate"):
        yield layer.isel({dim: 0})
        yield layer.isel({dim: slice(0, 0)})
    yield layer.transpose("time", "sample", ...)
    yield layer[["hidden"]]
    yield layer.drop_attrs()
    yield from (layer.astype(dtype) for dtype in (object, "datetime64[ns]", complex))
    yield layer * np.nan
    yield xr.Dataset()


def functions() -> dict[str, Callable[..., Any]]:
    """Find everything public that can be called."""
    named = {prefix + name: getattr(home, name) for prefix, home in HOMES.items() for name in dir(home)}
    return {
        name: each
        for name, each in named.items()
        if callable(each)
        and str(getattr(each, "__module__", "")).startswith("throughtime.")
        and each.__module__.rpartition(".")[2] not in NOT_PUBLIC
        and name.rpartition(".")[2] not in NOT_CALLED
        and not (isinstance(each, type) and issubclass(each, Exception))
    }


def called(world: World, name: str, function: Callable[..., Any], draw: random.Random) -> Outcome:
    """Call a function with good arguments, of which up to three are replaced by odd ones."""
    parameters = inspect.signature(function).parameters
    given = {each: world.good[each] for each in parameters if each in world.good and each != "layer"}
    given |= {"layer": world.good["layer"]} if name.startswith(("diagnostics.", "testing.")) else {}
    given = {each: value for each, value in given.items() if each in parameters}
    if name.startswith("picture."):
        good = world.parts[name.removeprefix("picture.")]
        given = {each: value for each, value in good.items() if each in parameters}
    elif "model" in given and world.keras is not None and draw.random() < 0.3:
        given |= {"model": world.keras, **({"loss": "mse"} if "loss" in given else {})}
    free = [each for each, has in parameters.items() if has.kind is not inspect.Parameter.VAR_KEYWORD]
    free += LOOK if len(free) < len(parameters) else ()
    for each in draw.sample(free, min(len(free), draw.choice((1, 1, 2, 3)))):
        is_tree = each in TREES and draw.random() < 0.6
        given[each] = draw.choice(world.trees) if is_tree else draw.choice(world.odd)()
    return judged(world, name, lambda: used(world, function(**given)), given)


def used(world: World, result: Any) -> None:
    """Use what was returned as people do: save a picture, ask a probe and a schedule."""
    if isinstance(result, tt.picture.Mark):
        result = tt.picture.Panel((result,))
    if isinstance(result, tt.picture.Axis):
        result = tt.picture.Panel((), x=result, y=result)
    if isinstance(result, tt.picture.Panel):
        result = tt.picture.Picture((result,))
    if isinstance(result, tt.picture.Picture):
        tt.save(result, world.folder / "picture.png")
        tt.save(result, world.folder / "picture.html")
    elif isinstance(result, tt.Probe):
        result(world.x, world.y)
    elif getattr(result, "__module__", "").endswith("_monitor.schedules"):
        result(7)


def commanded(world: World, draw: random.Random) -> Outcome:
    """Run a command with odd words."""
    pictures = [name.removeprefix("plots.") for name in functions() if name.startswith("plots.")]
    words = [*WORDS, *pictures, *map(str, (world.run, world.folder, world.folder / "none"))]
    command = draw.choice(COMMANDS)
    arguments = [command, str(world.run) if draw.random() < 0.7 else draw.choice(words)]
    if command in ("plot", "compare"):
        arguments.append(draw.choice(pictures if command == "plot" else words))
    if command in ("plot", "report", "export"):
        arguments += ["-o", str(world.folder / f"out.{draw.choice(('png', 'html', 'npz', 'nc', 'xyz'))}")]
    for _ in range(draw.choice((0, 1, 2))):
        arguments += [draw.choice(OPTIONS), draw.choice(words)]

    def run() -> None:
        result = CliRunner().invoke(app, arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception

    return judged(world, f"command {command}", run, dict(enumerate(arguments)))


def judged(world: World, name: str, call: Callable[[], Any], arguments: Mapping[Any, Any]) -> Outcome:
    """Make a call and say how it ended."""
    problem = ""
    try:
        call()
    except (tt.ThroughTimeError, AskedError):
        pass
    except Exception as error:  # these are what is looked for
        frames = traceback.extract_tb(error.__traceback__)
        place = next((frame for frame in reversed(frames) if "throughtime/" in frame.filename), frames[-1])
        where = f"{'/'.join(Path(place.filename).parts[-2:])}:{place.name}"
        words = re.sub(r"0x[0-9a-f]+|\d+", "…", str(error)).partition("\n")[0][:70]
        problem = f"{type(error).__name__} via {where}: {words}"
    finally:
        plt.close("all")
    told = ", ".join(f"{key}={shown(value)}" for key, value in arguments.items())
    return Outcome(name, problem or world.damage(), told)


def shown(value: Any) -> str:
    try:
        return repr(value).replace("\n", " ")[:60]
    except AskedError:
        return type(value).__name__


def outcomes(calls: int, seed: int, folder: Path) -> Iterator[Outcome]:
    """Make calls one after another; functions that take long are called less often."""
    draw, named = random.Random(seed), functions()
    weights = [RARE.get(name, 1.0) for name in named]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        world = World(folder)
        os.chdir(folder)  # a path that is no absolute one is written there
        for _ in range(calls):
            if draw.random() < 0.08:
                yield commanded(world, draw)
            else:
                (name,) = draw.choices([*named], weights)
                yield called(world, name, named[name], draw)


def main() -> None:
    calls, seed = (*map(int, sys.argv[1:3]), *(10_000, 0)[len(sys.argv) - 1 :])
    places, examples = Counter[str](), {}
    with tempfile.TemporaryDirectory() as folder:
        for number, outcome in enumerate(outcomes(calls, seed, Path(folder)), 1):
            if outcome.problem:
                places[outcome.problem] += 1
                examples.setdefault(outcome.problem, f"{outcome.function}({outcome.call})")
            if number % 500 == 0:
                print(f"{number} calls, {places.total()} untyped, {len(places)} places", file=sys.stderr)
        os.chdir("/")
    for problem, count in places.most_common():
        print(f"{count:5} {problem}\n        {examples[problem][:300]}")
    names = f"{len(functions())} functions and {len(COMMANDS)} commands"
    print(f"{calls} calls of {names}: {places.total()} untyped errors, {len(places)} places")


if __name__ == "__main__":
    main()
