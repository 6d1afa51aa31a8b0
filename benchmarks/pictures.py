"""Pictures of many panels: as many subplots of matplotlib against `show_features_1D` and `tt.plots`.

Each is drawn into a png, as a user would; the size of our files is a row of its own.
"""

import io
import time
from collections.abc import Callable, Iterator

import matplotlib as mpl
import numpy as np
import xarray as xr
from blocks import Row, block, emit
from matplotlib import pyplot as plt

import throughtime as tt
from throughtime.picture._drawing.theme import Theme
from throughtime.picture._render.matplotlib import encoded
from throughtime.picture._render.page import page

THEME = Theme(dpi=100)
SIZE = (11, 9)  # inches, as ours


def gradients(samples: int, steps: int, units: int) -> xr.DataArray:
    """Noise that fades towards the first steps, as gradients do."""
    fading = np.logspace(-6, 0, steps)[:, None]
    values = fading * np.random.default_rng(0).normal(size=(samples, steps, units))
    return xr.DataArray(values, dims=("sample", "time", "unit"), name="hidden_gradient")


def panel_rows() -> Iterator[Row]:
    def classic(data):
        fig, _ = tt.show_features_1D(data.values)
        fig.canvas.draw()
        plt.close(fig)

    for samples in (1, 16):
        data = gradients(samples, 100, 256)
        noun = "sample" if samples == 1 else "samples"
        seconds = least(lambda data=data: line_subplots(data))
        for what, ours in (("ours", classic), ("tt.plots.lines", lambda data: png(tt.plots.lines(data)))):
            ours(data)
            yield {
                "what": f"256 panels, {samples} {noun}: subplots ÷ {what}",
                "case": "T=100",
                "ratio": seconds / block(lambda data=data, ours=ours: ours(data)),
            }


def image_rows() -> Iterator[Row]:
    for what, samples, steps, units in (
        ("composite of 64 samples", 64, 300, 64),
        ("one image", 1, 1000, 512),
    ):
        data = gradients(samples, steps, units)
        seconds = least(lambda data=data: image_subplots(data))
        png(tt.plots.heatmap(data))
        yield {
            "what": f"{what}: subplots ÷ tt.plots.heatmap",
            "case": f"{units} × {steps}",
            "ratio": seconds / block(lambda data=data: png(tt.plots.heatmap(data))),
        }


def size_rows() -> Iterator[Row]:
    """Yield megabytes of files, which are no ratios but stay beside a limit."""
    for what, data in (
        ("lines, 256 × 16 samples", gradients(16, 100, 256)),
        ("heatmap, 512 × 1000", gradients(1, 1000, 512)),
        ("composite, 64 samples", gradients(64, 300, 64)),
    ):
        draw = tt.plots.lines if what.startswith("lines") else tt.plots.heatmap
        picture = draw(data)
        for kind in ("png", "svg"):
            yield {
                "what": f"megabytes: {what}",
                "case": kind,
                "ratio": len(encoded(picture, THEME, kind)) / 1e6,
            }
        yield {"what": f"megabytes: {what}", "case": "html", "ratio": html_bytes(picture) / 1e6}


def html_bytes(picture: tt.picture.Picture) -> int:
    return len(page(picture, THEME).encode())


def png(picture: tt.picture.Picture) -> bytes:
    return encoded(picture, THEME)


def line_subplots(data: xr.DataArray) -> None:
    fig, axes = plt.subplots(16, 16, sharex=True, sharey=True, figsize=SIZE)
    for unit, ax in enumerate(axes.flat):
        ax.plot(data.values[..., unit].T)
    written(fig)


def image_subplots(data: xr.DataArray) -> None:
    columns = int(np.ceil(len(data) ** 0.5))
    fig, axes = plt.subplots(columns, columns, sharex=True, sharey=True, squeeze=False, figsize=SIZE)
    for sample, ax in zip(np.log10(np.abs(data.values)), axes.flat, strict=False):
        ax.imshow(sample.T, aspect="auto", cmap="viridis")
    written(fig)


def written(fig: mpl.figure.Figure) -> None:
    fig.savefig(io.BytesIO(), format="png", dpi=100)
    plt.close(fig)


def least(call: Callable[[], object]) -> float:
    return min(timed(call) for _ in range(2))


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    mpl.use("agg")
    emit(panel_rows())
    emit(image_rows())
    emit(size_rows())
