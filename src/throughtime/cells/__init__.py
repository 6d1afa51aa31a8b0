"""States, gates and gradients of a recurrent layer, solved exactly from the results of its kernel, in NumPy.

Adapters pass a `Layer` and a `Pass`; `solve` returns every state, gate and gradient through time,
`step_jacobians` the Jacobians for diagnostics, and the certificate measures the errors.
"""

from .activations import ACTIVATIONS as ACTIVATIONS
from .activations import Activation as Activation
from .activations import activation as activation
from .adjoint import solve as solve
from .certificate import PRECISIONS as PRECISIONS
from .certificate import Precision as Precision
from .certificate import bar as bar
from .certificate import certificate_time as certificate_time
from .certificate import certificate_weights as certificate_weights
from .certificate import input_terms as input_terms
from .certificate import limit as limit
from .certificate import states_before as states_before
from .certificate import step_sizes as step_sizes
from .certificate import summed_terms as summed_terms
from .contribution import on_recurrent_side as on_recurrent_side
from .contribution import step_contribution as step_contribution
from .contribution import sums_along as sums_along
from .directions import along_directions as along_directions
from .directions import directions as directions
from .jacobians import step_jacobians as step_jacobians
from .layer import Layer as Layer
from .layer import Pass as Pass
from .quantities import DEFINITIONS as DEFINITIONS
from .quantities import QUANTITIES as QUANTITIES
from .quantities import WEIGHT_GRADIENTS as WEIGHT_GRADIENTS
from .steps import squared_norm as squared_norm
