"""A contact sheet of all pictures of five captures, to be looked at after a change of colours or layout.

`python benchmarks/sheet.py captures FOLDER` trains and captures once, in PyTorch alone and ten seconds;
`python benchmarks/sheet.py FORM FOLDER` draws from there, where FORM is screen, column or page (of a paper),
or phone, which needs Chromium; screen also makes the gallery and thumbnails of docs/images. More words choose
plots. `python benchmarks/sheet.py pages FOLDER` photographs the pages that scripts/demo left in a folder.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from PIL import Image, ImageDraw
from playwright.sync_api import sync_playwright
from torch import nn

import throughtime as tt
from throughtime import plots
from throughtime._pages.live import Server
from throughtime.picture import Image as Drawn
from throughtime.picture._drawing.colors import TOP
from throughtime.picture._render.matplotlib import encoded

BATCH = 16
DRAWN = "Bokeh.documents.length && Bokeh.documents.every(each => each.is_idle)"
SMALL = ("lag_profile", "contributions", "gates", "heatmap", "evolution")


class Reader(nn.Module):
    """Recurrent layers and a head on the last step; `lengths` pack the batch."""

    def __init__(self, kind: str, features: int, units: int, layers: int = 1, **options: Any) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(features, units, layers, batch_first=True, **options)
        self.head = nn.Linear(units * (2 if options.get("bidirectional") else 1), 1)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        if lengths is None:
            return self.head(self.rnn(x)[0][:, -1])
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.head(nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0].mean(1))


def recall(samples: int, steps: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """The target is the first of `steps` inputs."""
    x = torch.randn(samples, steps, 1, generator=torch.Generator().manual_seed(seed))
    return x, x[:, 0]


def untrained() -> xr.DataTree:
    torch.manual_seed(0)
    x = torch.randn(BATCH, 100, 8)
    return tt.capture(Reader("LSTM", 8, 16, 2), x, torch.randn(BATCH, 1), loss=nn.MSELoss())


def solved(folder: Path) -> xr.DataTree:
    """Learn to recall the first of 40 inputs, from chrono initialisation (Tallec & Ollivier 2018)."""
    torch.manual_seed(1)
    model, steps = Reader("LSTM", 1, 24), 40
    with torch.no_grad():
        bias = torch.log(torch.empty(24).uniform_(1, steps - 1))
        model.rnn.bias_ih_l0[:48] = torch.cat([-bias, bias])
        model.rnn.bias_hh_l0.zero_()
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    batch = recall(BATCH, steps, seed=99)
    monitor = tt.Monitor(folder / "run.zarr", batch=batch, every=20, mode="overwrite", quantities="timestep")
    with monitor.watch(model, loss=nn.MSELoss()):
        for step in range(600):
            x, y = recall(64, steps, seed=step)
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            monitor.step(gradient_norm=norm, clip_norm=1.0)
    return tt.capture(model, *batch, loss=nn.MSELoss())


def exploding() -> xr.DataTree:
    torch.manual_seed(2)
    model = Reader("RNN", 4, 32)
    with torch.no_grad():
        model.rnn.weight_hh_l0.normal_(0, 1.8 / 32**0.5)
    return tt.capture(model, 0.1 * torch.randn(BATCH, 60, 4), torch.randn(BATCH, 1), loss=nn.MSELoss())


def masked() -> xr.DataTree:
    torch.manual_seed(3)
    lengths = torch.linspace(8, 48, BATCH).long()
    inputs = {"x": torch.randn(BATCH, 48, 6), "lengths": lengths}
    model = Reader("GRU", 6, 12, bidirectional=True)
    return tt.capture(model, inputs, torch.randn(BATCH, 1), loss=nn.MSELoss())


def wide() -> xr.DataTree:
    torch.manual_seed(4)
    x = torch.randn(8, 64, 16)
    return tt.capture(Reader("GRU", 16, 512), x, torch.randn(8, 1), loss=nn.MSELoss())


NAMES = ("untrained", "solved", "exploding", "masked", "wide")


GALLERY = (
    *("solved-overview", "untrained-gradient_flow", "exploding-lag_profile", "untrained-compare"),
    *("untrained-heatmap_slider", "untrained-contributions", "solved-training", "solved-gates"),
    *("solved-lines", "masked-histogram", "solved-weights", "solved-evolution"),
    *("masked-heatmap", "exploding-spectrum", "solved-lag_matrix", "masked-scatter"),
)


def capture_all(folder: Path) -> None:
    made: dict[str, Callable[[], xr.DataTree]] = {
        "untrained": untrained,
        "solved": lambda: solved(folder),
        "exploding": exploding,
        "masked": masked,
        "wide": wide,
    }
    for name, make in made.items():
        make().to_netcdf(folder / f"{name}.nc", engine="h5netcdf", invalid_netcdf=True)


def pictures(tree: xr.DataTree, other: xr.DataTree, run: xr.DataTree | None) -> Iterator[tuple[str, Any]]:
    """Each picture by its name, or the error that says why there is none."""
    layer = next(leaf for leaf in tree.leaves if "hidden" in leaf)
    second = next(leaf for leaf in other.leaves if "hidden" in leaf)
    last = layer["hidden_gradient"].isel(time=0)
    whole: dict[str, Callable[[], Any]] = {
        "heatmap": lambda: plots.heatmap(layer),
        "heatmap_slider": lambda: plots.heatmap(layer, sliders=["sample"]),
        "lines": lambda: plots.lines(layer),
        "scatter": lambda: plots.scatter(last),
        "histogram": lambda: plots.histogram(layer),
        "gradient_flow": lambda: plots.gradient_flow(tree),
        "lag_profile": lambda: plots.lag_profile(layer),
        "contributions": lambda: plots.contributions(layer),
        "gates": lambda: plots.gates(layer),
        "weights": lambda: plots.weights(layer),
        "spectrum": lambda: plots.spectrum(layer),
        "compare": lambda: plots.compare(layer, second),
        "overview": lambda: plots.overview(tree),
    }
    if run is not None:
        whole["evolution"] = lambda: plots.evolution(run)
        whole["training"] = lambda: plots.training(run)
        whole["lag_matrix"] = lambda: plots.lag_matrix(tt.testing.lag_matrix_of(0.9, samples=4, steps=60))
    for name, draw in whole.items():
        try:
            yield name, draw()
        except tt.ThroughTimeError as error:
            yield name, error


FORMS = {"screen": tt.Theme(dpi=110), "column": tt.Theme.for_paper(3.35), "page": tt.Theme.for_paper(6.9)}
PHONE = {"width": 390, "height": 800}
# Machado, Oliveira & Fernandes 2009: what an eye without green cones sees, in linear RGB.
DEUTERANOPIA = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])


@contextmanager
def phone() -> Iterator[Callable[[Any, Path], None]]:
    """Draw plots as pages, and photograph them as a phone shows them."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport=PHONE)

        def draw(picture: Any, target: Path) -> None:
            page = tt.save(picture, target.with_suffix(".html"))
            tab.goto(page.absolute().as_uri())
            tab.wait_for_function(DRAWN)
            tab.wait_for_timeout(300)
            tab.screenshot(path=target, full_page=True)
            wide = tab.evaluate(
                "[...document.querySelectorAll('.drawn')].map(each => each.scrollWidth - each.clientWidth)"
            )
            if max(wide) > 0:
                print(f"{target.stem}: {max(wide)} pixels to scroll")
            page.unlink()

        yield draw
        browser.close()


def pages(folder: Path) -> None:
    """Photograph the top of the demo's report, and the live page of its run."""
    report = (folder / "report.html").absolute().as_uri()
    with chdir(folder), sync_playwright() as playwright:
        server = Server("demo_run.zarr", 0)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, address, width, height in (("report", report, 1200, 860), ("live", server.url, 1280, 1100)):
            tab = browser.new_page(viewport={"width": width, "height": height})
            tab.goto(address)
            tab.wait_for_function(DRAWN)
            tab.wait_for_timeout(3000)
            tab.screenshot(path=f"{name}.png")
        browser.close()
        server.close()
    save(Image.open(folder / "report.png"), folder / "small_report.png", (320, 240))


def save(image: Image.Image, target: Path, size: tuple[int, int]) -> None:
    """Save an image in few colours, at most as large as asked for."""
    image = image.convert("RGB")
    image.thumbnail(size, Image.Resampling.LANCZOS)
    image.quantize(64).save(target, optimize=True)


@contextmanager
def paper(theme: tt.Theme) -> Iterator[Callable[[Any, Path], None]]:
    """Draw plots with matplotlib."""
    yield lambda picture, target: target.write_bytes(encoded(picture, theme)) and None


def draw_all(folder: Path, form: str, which: set[str]) -> None:
    trees = {name: xr.open_datatree(folder / f"{name}.nc", engine="h5netcdf").load() for name in NAMES}
    run = tt.open_run(folder / "run.zarr")
    out = folder / form
    out.mkdir(exist_ok=True)
    used: list[float] = []
    with phone() if form == "phone" else paper(FORMS[form]) as draw:
        for name, tree in trees.items():
            if which & {*NAMES} and name not in which:
                continue
            for kind, picture in pictures(tree, trees["solved"], run if name == "solved" else None):
                if which - {*NAMES} and kind not in which:
                    continue
                target = out / f"{name}-{kind}.png"
                target.unlink(missing_ok=True)
                try:
                    if isinstance(picture, Exception):
                        raise picture
                    draw(picture, target)
                    if (share := range_in_use(picture)) is not None:
                        used.append(share)
                        print(f"{name} {kind}: {share:.0%} of the colours in use")
                except tt.ThroughTimeError as error:
                    print(f"{name} {kind}: {error}")
    print(f"colours in use: median {np.median(used or [np.nan]):.0%}, least {min(used, default=np.nan):.0%}")
    sheet(sorted(out.glob("*.png")), folder / f"sheet_{form}.png")
    if form == "screen":
        for plot in SMALL:
            small = folder / f"small_{plot.replace('lag_profile', 'reach')}.png"
            save(Image.open(out / f"solved-{plot}.png"), small, (320, 240))
        gallery([out / f"{name}.png" for name in GALLERY], folder / "pictures.png")
        gallery([out / f"{name}.png" for name in GALLERY], folder / "pictures_grey.png", see=grey)
        gallery(
            [out / f"{name}.png" for name in GALLERY], folder / "pictures_deuteranopia.png", see=without_green
        )


def range_in_use(picture: Any) -> float | None:
    """Share of a logarithmic map between the 1 % and 99 % quantile of the values on it, of all frames."""
    images = [mark for mark in picture.marks(Drawn) if mark.colors.scale.kind == "log10"]
    codes = [image.colors.codes(image.values, image.valid).ravel() for image in images]
    on_scale = np.concatenate([each[each >= 0] for each in codes] or [np.empty(0)])
    return float(np.diff(np.quantile(on_scale, (0.01, 0.99)))[0] / TOP) if on_scale.size else None


def grey(image: Image.Image) -> Image.Image:
    return image.convert("L").convert("RGB")


def without_green(image: Image.Image) -> Image.Image:
    """Simulate deuteranopia."""
    shares = np.asarray(image, float) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4) @ DEUTERANOPIA.T
    linear = np.clip(linear, 0, 1)
    seen = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return Image.fromarray((255 * seen).round().astype(np.uint8))


def sheet(files: list[Path], target: Path, width: int = 520) -> None:
    """Put drawings side by side, a column a capture, a row a picture."""
    kinds = list(dict.fromkeys(file.stem.partition("-")[2] for file in files))
    shrunk = {}
    for file in files:
        image = Image.open(file).convert("RGB")
        shrunk[file.stem] = image.resize(
            (width, round(image.height * width / image.width)), Image.Resampling.LANCZOS
        )
    heights = [
        max([shrunk[f"{n}-{kind}"].height for n in NAMES if f"{n}-{kind}" in shrunk]) + 8 for kind in kinds
    ]
    canvas = Image.new("RGB", (len(NAMES) * (width + 8), sum(heights) + 20), "white")
    pen = ImageDraw.Draw(canvas)
    top = 20
    for column, name in enumerate(NAMES):
        pen.text((column * (width + 8) + 4, 4), name, "black")
    for kind, height in zip(kinds, heights, strict=True):
        for column, name in enumerate(NAMES):
            if (image := shrunk.get(f"{name}-{kind}")) is not None:
                canvas.paste(image, (column * (width + 8), top))
        top += height
    canvas.save(target, optimize=True)


def gallery(
    files: list[Path],
    target: Path,
    size: tuple[int, int] = (520, 330),
    across: int = 4,
    see: Callable[[Image.Image], Image.Image] = lambda image: image,
) -> None:
    """Put one drawing of each picture into a grid, as an eye sees it."""
    rows = -(-len(files) // across)
    canvas = Image.new("RGB", (across * (size[0] + 12), rows * (size[1] + 12)), "white")
    for place, file in enumerate(files):
        image = Image.open(file).convert("RGB")
        image.thumbnail(size, Image.Resampling.LANCZOS)
        canvas.paste(image, (place % across * (size[0] + 12) + 6, place // across * (size[1] + 12) + 6))
    see(canvas).quantize(200).save(target, optimize=True)


if __name__ == "__main__":
    action, place, *names = sys.argv[1:]
    if action == "captures":
        capture_all(Path(place))
    elif action == "pages":
        pages(Path(place))
    else:
        draw_all(Path(place), action, {*names})
