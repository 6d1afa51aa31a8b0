"""A grid of 256 line panels: as many subplots of matplotlib against `show_features_1D`."""

import time
from collections.abc import Callable, Iterator

import matplotlib as mpl
import numpy as np
from blocks import Row, block, emit
from matplotlib import pyplot as plt

import throughtime as tt


def panel_rows() -> Iterator[Row]:
    def subplots(data):
        fig, axes = plt.subplots(16, 16, sharex=True, sharey=True)
        for unit, ax in enumerate(axes.flat):
            ax.plot(data[..., unit].T)
        fig.canvas.draw()
        plt.close(fig)

    def ours(data):
        fig, _ = tt.show_features_1D(data)
        fig.canvas.draw()
        plt.close(fig)

    for samples in (1, 16):
        data = np.random.default_rng(0).normal(size=(samples, 100, 256))
        ours(data)
        seconds = min(timed(lambda data=data: subplots(data)) for _ in range(2))
        noun = "sample" if samples == 1 else "samples"
        yield {
            "what": f"256 panels, {samples} {noun}: subplots ÷ ours",
            "case": "T=100",
            "ratio": seconds / block(lambda data=data: ours(data)),
        }


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    mpl.use("agg")
    emit(panel_rows())
