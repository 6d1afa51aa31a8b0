"""Plots of a capture: each function takes a tree, a layer or a DataArray and returns one `Picture`.

`tt.save(picture, path)` writes it as png, svg, pdf or html. Nothing here draws, shows or keeps a state: a
`Picture` consists of arrays, which can be read and tested.
"""

from throughtime.plots.compare import compare
from throughtime.plots.contributions import contributions
from throughtime.plots.evolution import evolution
from throughtime.plots.gates import gates
from throughtime.plots.gradient_flow import gradient_flow
from throughtime.plots.heatmap import heatmap
from throughtime.plots.histogram import histogram
from throughtime.plots.lag_matrix import lag_matrix
from throughtime.plots.lag_profile import lag_profile
from throughtime.plots.lines import lines
from throughtime.plots.look import Look
from throughtime.plots.overview import overview
from throughtime.plots.scatter import scatter
from throughtime.plots.spectrum import spectrum
from throughtime.plots.training import training
from throughtime.plots.weights import weights

__all__ = [
    "Look", "compare", "contributions", "evolution", "gates", "gradient_flow", "heatmap", "histogram",
    "lag_matrix", "lag_profile", "lines", "overview", "scatter", "spectrum", "training", "weights",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
