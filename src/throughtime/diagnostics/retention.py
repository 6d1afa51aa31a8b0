"""Memory of linear recurrences from their decays: the share of a state that remains, and its sensitivity.

For linear RNNs and state-space models, s_t = a_t·s_{t−1} + …; takes plain arrays, not captures.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from throughtime._errors import DiagnosticError
from throughtime._inputs import takes
from throughtime._inputs.rules import array

Floats = npt.NDArray[np.float64]


@takes(DiagnosticError, decay=array(kinds="biufc"))
def retention(decay: npt.ArrayLike, *, axis: int = -1) -> Floats:
    """Share of a state that remains after all steps along an axis: exp(Σ ln|a_t|).

    Parameters
    ----------
    decay : array_like, real or complex
        a_t, one per step along `axis`.
    axis : int

    Returns
    -------
    ndarray without `axis`

    Raises
    ------
    DiagnosticError
        An argument is not as described above.

    References
    ----------
    Zucchet & Orvieto (2024), arXiv 2405.21064.

    Examples
    --------
    >>> float(retention([0.9] * 10).round(6))
    0.348678
    """
    decays = np.asarray(decay)
    if not -decays.ndim <= axis < decays.ndim:
        raise DiagnosticError(f"axis={axis}: decay has shape {decays.shape}, without such an axis.")
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(np.exp(np.sum(np.log(np.abs(decays)), axis=axis)), dtype=np.float64)


@takes(DiagnosticError, decay=array(kinds="biufc", least=1))
def sensitivity(decay: npt.ArrayLike) -> Floats:
    """Sensitivity of the loss to a decay λ near 1: (1 + λ²) / (1 − λ²)³.

    As λ → 1, memory grows and the sensitivity explodes although no gradient explodes: a small change of λ
    then changes the loss strongly.

    Parameters
    ----------
    decay : array_like, real or complex, of magnitude below 1

    Returns
    -------
    ndarray of the same shape

    Raises
    ------
    DiagnosticError
        A magnitude is 1 or more: such a state grows without bound.

    References
    ----------
    Zucchet & Orvieto (2024), arXiv 2405.21064.

    Examples
    --------
    >>> sensitivity([0.0, 0.9]).round(2)
    array([  1.  , 263.89])
    """
    squared = np.abs(np.asarray(decay)) ** 2
    if not np.all(squared < 1):
        raise DiagnosticError(f"decay has |λ| up to {np.sqrt(np.max(squared)):.6g}; expected |λ| below 1.")
    return np.asarray((1 + squared) / (1 - squared) ** 3, dtype=np.float64)
