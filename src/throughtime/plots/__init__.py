"""Pictures of a capture: each function takes a tree, a layer or a DataArray and returns one `Picture`.

`tt.save(picture, path)` writes it as png, svg, pdf or html. Nothing here draws, shows or keeps a state: what
a picture holds can be read, and tested, as arrays.
"""

from throughtime.plots.compare import compare as compare
from throughtime.plots.contributions import contributions as contributions
from throughtime.plots.evolution import evolution as evolution
from throughtime.plots.gates import gates as gates
from throughtime.plots.gradient_flow import gradient_flow as gradient_flow
from throughtime.plots.heatmap import heatmap as heatmap
from throughtime.plots.histogram import histogram as histogram
from throughtime.plots.lag_matrix import lag_matrix as lag_matrix
from throughtime.plots.lag_profile import lag_profile as lag_profile
from throughtime.plots.lines import lines as lines
from throughtime.plots.look import Look as Look
from throughtime.plots.scatter import scatter as scatter
from throughtime.plots.spectrum import spectrum as spectrum
from throughtime.plots.weights import weights as weights
