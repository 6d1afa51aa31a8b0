"""The adapter for Keras 3 on its three backends: a model and a batch become a `ModelRecord`.

`Probe` plans once (`find`, `loss`), runs the `program` through one of the `gradient_<backend>` modules,
and collects arrays into records (`weights`). `describe` reads layers without running anything.
"""

from functools import partial

from throughtime.adapters.keras import describe as _describe
from throughtime.adapters.keras import probe as _probe
from throughtime.adapters.keras import sample_losses as _sample_losses
from throughtime.adapters.keras.describe import load_weights as load_weights
from throughtime.adapters.keras.describe import weights_of as weights_of

from . import dialect as _dialect

Probe = partial(_probe.Probe, _dialect)
describe = partial(_describe.describe, _dialect)
losses = partial(_sample_losses.losses, _dialect)
