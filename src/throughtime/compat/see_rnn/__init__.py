"""The public names of see-rnn 1.15: an old script changes only its import.

They read models of Keras 3, tf_keras and Keras 2. Gradients are the framework's own, and time is input time
in both directions of a bidirectional layer. An argument that has no meaning here raises an `ArgumentError`,
a `TypeError` that names the successor. `docs/coming_from/see_rnn.md` has a table of all names.
"""

from throughtime.compat.see_rnn.arguments import get_full_name as get_full_name
from throughtime.compat.see_rnn.arguments import get_layer as get_layer
from throughtime.compat.see_rnn.arrays import detect_nans as detect_nans
from throughtime.compat.see_rnn.arrays import get_gradients as get_gradients
from throughtime.compat.see_rnn.arrays import get_outputs as get_outputs
from throughtime.compat.see_rnn.arrays import get_rnn_weights as get_rnn_weights
from throughtime.compat.see_rnn.arrays import get_weight_penalties as get_weight_penalties
from throughtime.compat.see_rnn.arrays import get_weights as get_weights
from throughtime.compat.see_rnn.arrays import rnn_summary as rnn_summary
from throughtime.compat.see_rnn.arrays import weight_loss as weight_loss
from throughtime.compat.see_rnn.arrays import weights_norm as weights_norm
from throughtime.compat.see_rnn.pictures import features_0D as features_0D
from throughtime.compat.see_rnn.pictures import features_1D as features_1D
from throughtime.compat.see_rnn.pictures import features_2D as features_2D
from throughtime.compat.see_rnn.pictures import features_hist as features_hist
from throughtime.compat.see_rnn.pictures import features_hist_v2 as features_hist_v2
from throughtime.compat.see_rnn.pictures import hist_clipped as hist_clipped
from throughtime.compat.see_rnn.pictures import rnn_heatmap as rnn_heatmap
from throughtime.compat.see_rnn.pictures import rnn_histogram as rnn_histogram
from throughtime.compat.see_rnn.pictures import scalefig as scalefig
