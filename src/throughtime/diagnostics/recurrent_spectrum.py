"""The recurrent kernel of each gate as a linear map: its eigenvalues, singular values, and non-normality.

It depends on the weights alone; `lyapunov_spectrum` includes the activations and the data. A cell without
such a kernel is described by its step Jacobians instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from throughtime._errors import DiagnosticError
from throughtime._inputs import takes
from throughtime._inputs.rules import array, whole
from throughtime._tree import Layer, require
from throughtime._vocabulary import STANDARD_KINDS
from throughtime.diagnostics.checks import certified, require_unprojected
from throughtime.diagnostics.labelled import apply
from throughtime.diagnostics.state_jacobian import STATES, state_jacobian

_MATRIX = ("unit_from", "unit")
_RESULTS = ("eigenvalues", "spectral_radius", "largest_singular_value", "orthogonality_gap", "non_normality")


@takes(DiagnosticError)
def recurrent_spectrum(layer: Layer) -> xr.Dataset:
    """Spectrum of the recurrent kernel U, per gate; of a custom cell that of its step Jacobians.

    Gradients can grow although the radius is below 1: a non-normal U grows at first, see `transient_growth`.
    In an LSTM or GRU the gates scale the effect of U.

    Parameters
    ----------
    layer : one layer of a capture, with `recurrent_kernel` ([direction,] unit_from, [gate,] unit)
        A custom cell that has no weight of these axes: what `state_jacobian` needs.

    Returns
    -------
    Dataset ([direction,] [gate]), for step Jacobians (sample, time, [direction])
        `spectral_radius` ρ(U) = max|λ|; `largest_singular_value` σ₁(U); `orthogonality_gap`
        ‖UᵀU − I‖_F / √n, 0 for an orthogonal and 1 for a zero matrix; `non_normality`, Henrici's
        √(‖U‖_F² − Σ|λ|²) / ‖U‖_F, 0 for a normal matrix, NaN for a zero one; `eigenvalues` (mode), complex,
        largest first. All NaN for weights that are not finite.

    References
    ----------
    Kerg et al. (2019), Non-normal recurrent neural network (nnRNN), arXiv 1905.12080.

    Examples
    --------
    >>> from throughtime import testing
    >>> found = recurrent_spectrum(testing.decaying(rate=0.5))
    >>> float(found["spectral_radius"]), float(found["orthogonality_gap"]), float(found["non_normality"])
    (0.5, 0.75, 0.0)
    """
    captured = require_unprojected(certified(layer))
    has_matrix = "recurrent_kernel" in captured and {*_MATRIX} <= {*captured["recurrent_kernel"].dims}
    if has_matrix or captured.attrs.get("kind", STANDARD_KINDS[0]) in STANDARD_KINDS:
        kernel, core = require(captured, "recurrent_kernel"), _MATRIX
    else:
        kernel, core = state_jacobian(captured), STATES
    parts = apply(
        _spectrum,
        kernel,
        over=[core],
        returns=[("mode",), (), (), (), ()],
        types=[np.complex128] + [np.float64] * 4,
        sizes={"mode": kernel.sizes[core[1]]},
        vectorize=True,
    )
    return xr.Dataset(dict(zip(_RESULTS, parts, strict=True)))


def _spectrum(kernel: npt.NDArray[Any]) -> tuple[Any, ...]:
    matrix = kernel.astype(np.float64)
    if not np.isfinite(matrix).all():
        return np.full(len(matrix), np.nan + 0j), np.nan, np.nan, np.nan, np.nan
    values = np.linalg.eigvals(matrix).astype(np.complex128)
    values = values[np.argsort(-np.abs(values), kind="stable")]
    size = np.linalg.norm(matrix)
    gap = np.linalg.norm(matrix.T @ matrix - np.eye(len(matrix))) / np.sqrt(len(matrix))
    # Schur: ‖U‖_F² is Σ|λ|² plus the part above the diagonal, which rounding can make negative.
    departure = np.sqrt(max(size**2 - np.sum(np.abs(values) ** 2), 0.0))
    relative = departure / size if size > 0 else np.nan
    return values, np.abs(values[0]), np.linalg.norm(matrix, 2), gap, relative


@takes(DiagnosticError, matrix=array(2, least=1), powers=whole(0))
def transient_growth(matrix: npt.ArrayLike, *, powers: int = 100) -> npt.NDArray[np.float64]:
    """Spectral norms of the powers of a matrix, ‖J^k‖ for k = 0 … `powers`.

    If the spectral radius is below 1, the norms tend to 0; those of a non-normal matrix can grow a lot first.

    Parameters
    ----------
    matrix : array_like (n, n)
    powers : int

    Returns
    -------
    ndarray (powers + 1)

    Raises
    ------
    DiagnosticError
        `matrix` is not square.

    References
    ----------
    Kerg et al. (2019), Non-normal recurrent neural network (nnRNN), arXiv 1905.12080.

    Examples
    --------
    >>> growth = transient_growth([[0.9, 5.0], [0.0, 0.9]])
    >>> int(growth.argmax()), float(growth.max().round(2))
    (9, 19.38)
    """
    step = np.asarray(matrix, dtype=np.float64)
    if step.ndim != 2 or step.shape[0] != step.shape[1]:
        raise DiagnosticError(f"matrix has shape {step.shape}; expected a square matrix.")
    norms, power = [], np.eye(len(step))
    for _ in range(powers + 1):
        norms.append(np.linalg.norm(power, 2))
        power = power @ step
    return np.array(norms)
