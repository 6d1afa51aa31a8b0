"""What stops a diagnosis before anything is concluded: numbers not finite, certificates that fail."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from throughtime._errors import DiagnosticError
from throughtime.diagnostics import first_nonfinite
from throughtime.diagnostics.checks import certified

from .findings import Verdict
from .words import say

_BACKWARD = ("gradient", "contribution", "lag_matrix")


def broken(leaves: Mapping[str, xr.Dataset]) -> tuple[Verdict, str] | None:
    """Find what makes every number meaningless, and say it; None where nothing does."""
    tree = xr.DataTree.from_dict({f"/{path}": leaf for path, leaf in leaves.items()})
    found = first_nonfinite(tree)
    if found is not None:
        is_backward = any(part in found.variable for part in _BACKWARD)
        leaf = leaves[found.layer.strip("/")]
        if found.variable == "input" and found.layer.strip("/") == next(iter(leaves)):
            return Verdict.CANNOT_SAY, say("nonfinite_data", where=found)
        if is_backward and str(leaf.attrs.get("dtype")) == "float16":
            return Verdict.CANNOT_SAY, say("loss_scaling", where=found)
        phase = "backward" if is_backward else "forward"
        return Verdict.UNSTABLE, say("nonfinite", where=found, phase=phase)
    for leaf in leaves.values():
        try:
            certified(leaf)
        except DiagnosticError as error:
            return Verdict.CANNOT_SAY, say("certificate", reason=error)
    return None


def gradient_norms(leaves: Mapping[str, xr.Dataset]) -> str:
    """Log10 of the norm of each layer's recurrent weights' gradient, as captured: before any clipping."""
    told = []
    for path, leaf in leaves.items():
        if "recurrent_kernel_gradient" in leaf:
            norm = float(np.linalg.norm(np.asarray(leaf["recurrent_kernel_gradient"], np.float64).ravel()))
            told.append(
                f"{path} {np.log10(norm):.2f}" if norm > 0 and np.isfinite(norm) else f"{path} {norm}"
            )
    return ", ".join(told)
