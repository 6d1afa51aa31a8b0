"""The classic functions: one layer's gradients as an array, and plots of arrays over time.

Each `show_…` has a module. `data` converts the caller's data, `frame` and `cells` lay out the panels. Figures
are registered with pyplot, but not shown: a notebook cell or `plt.show()` shows them.
"""

from throughtime.compat._classic.gradients import get_rnn_gradients as get_rnn_gradients
from throughtime.compat._classic.show_0d import show_features_0D as show_features_0D
from throughtime.compat._classic.show_1d import show_features_1D as show_features_1D
from throughtime.compat._classic.show_2d import show_features_2D as show_features_2D
from throughtime.compat._classic.show_hist import show_features_hist as show_features_hist
