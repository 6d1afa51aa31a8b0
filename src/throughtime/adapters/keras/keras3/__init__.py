"""The adapter for Keras 3 on its three backends: a model and a batch become a `ModelRecord`.

`Probe` plans once (`find`, `loss`), runs the `program` through one of the `gradient_<backend>` modules,
and collects arrays into records (`weights`). `describe` reads layers without running anything.
"""

from throughtime.adapters.keras.keras3.describe import describe as describe
from throughtime.adapters.keras.keras3.find import listing as listing
from throughtime.adapters.keras.keras3.probe import Probe as Probe
from throughtime.adapters.keras.keras3.sample_losses import losses as losses
