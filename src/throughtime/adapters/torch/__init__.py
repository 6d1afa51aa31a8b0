"""The adapter for native PyTorch modules: a module and a batch become a `ModelRecord`.

`Probe` finds the layers (`find`), runs the module once with their kernels watched (`tap`, `fused`,
`windows`, `calls`), differentiates the loss by `torch.autograd.grad` and collects arrays into
records. `describe` reads layers without running anything.
"""

from throughtime.adapters.torch.checkpoint import load_weights as load_weights
from throughtime.adapters.torch.checkpoint import weights_of as weights_of
from throughtime.adapters.torch.describe import describe as describe
from throughtime.adapters.torch.first_step import FirstStep as FirstStep
from throughtime.adapters.torch.loss import losses as losses
from throughtime.adapters.torch.probe import Probe as Probe
from throughtime.adapters.torch.processes import processes_of as processes_of
