"""Pictures of a capture: each function takes a tree, a layer or a DataArray and returns one `Picture`.

`tt.save(picture, path)` writes it as png, svg, pdf or html. Nothing here draws, shows or keeps a state: what
a picture holds can be read, and tested, as arrays.
"""

from throughtime.plots.heatmap import heatmap as heatmap
from throughtime.plots.histogram import histogram as histogram
from throughtime.plots.lines import lines as lines
from throughtime.plots.look import Look as Look
from throughtime.plots.scatter import scatter as scatter
