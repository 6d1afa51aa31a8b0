"""The classic functions: one layer's gradients as an array, and what arrays over time look like.

`show_…` are the doors, each with its `draw_…`; `data` reads whatever the caller has, `panels` and `cells`
lay out the grid. Figures are handed to pyplot without being shown: a notebook cell or `plt.show()` does.
"""

from throughtime._classic.gradients import get_rnn_gradients as get_rnn_gradients
from throughtime._classic.show_0d import show_features_0D as show_features_0D
from throughtime._classic.show_1d import show_features_1D as show_features_1D
from throughtime._classic.show_2d import show_features_2D as show_features_2D
from throughtime._classic.show_hist import show_features_hist as show_features_hist
