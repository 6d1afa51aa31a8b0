"""Adapter for legacy Keras models: `tf_keras`, and Keras 2 as it came with TensorFlow up to 2.15.

Takes models of TensorFlow 2 and of TensorFlow 1's graph mode. `describe` reads layers without running them.
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
