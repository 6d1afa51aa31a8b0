"""The adapter for native PyTorch modules: a module and a batch become a `ModelRecord`.

`Probe` finds the layers (`find`), runs the module once with their kernels watched (`tap`, `kernels`,
`calls`), differentiates the loss by `torch.autograd.grad` and collects arrays into
records. `describe` reads layers without running anything.
"""

from throughtime.adapters.torch.description import describe as describe
from throughtime.adapters.torch.loss import losses as losses
from throughtime.adapters.torch.probe import Probe as Probe
from throughtime.adapters.torch.training import FirstStep as FirstStep
from throughtime.adapters.torch.training import processes_of as processes_of
from throughtime.adapters.torch.weights import load_weights as load_weights
from throughtime.adapters.torch.weights import weights_of as weights_of
