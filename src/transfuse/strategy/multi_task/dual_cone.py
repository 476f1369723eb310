"""Projection onto the dual cone of gradients: what UPGrad and DualProj share.

Dimensions in tensor names: T tasks.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from transfuse.strategy.multi_task.base import Array


def project(gramian_TT: Array, weights_T: Array, reg_eps: float = 0.0) -> Array:
    """`argmin v^T G v, v >= u`: the shortest combination that gives each row at least its weight `u`.

    With `v = u + s`, `s >= 0`, this is non-negative least squares `min ||R v||`, `R^T R` = the matrix of cosines; `u`
    and `v` are scaled by the gradients' norms before and after, so that norms far apart do no harm.

    Args:
        gramian_TT: (T, T), diagonal above 0; may be singular.
        weights_T: u, (T,) >= 0.
        reg_eps: share of the identity added to the Gramian over its trace, as peers do; 0 solves on the cosines.

    Returns:
        v, (T,).

    Reference:
        Quinton & Rey 2024, "Jacobian Descent for Multi-Objective Optimization", 2406.16232.
    """
    if reg_eps > 0:
        trace = np.trace(gramian_TT)
        gramian_TT = gramian_TT / trace + reg_eps * np.eye(len(gramian_TT))
    norms_T = np.sqrt(np.diagonal(gramian_TT))
    values_T, vectors_TT = np.linalg.eigh(gramian_TT / np.outer(norms_T, norms_T))
    root_TT = np.sqrt(np.maximum(values_T, 0.0))[:, None] * vectors_TT.T
    start_T = weights_T * norms_T / norms_T.max()
    # min ||R (u + s)||, s >= 0
    added_T, _ = nnls(root_TT, -root_TT @ start_T)
    found: Array = (start_T + added_T) / norms_T * norms_T.max()
    return found
