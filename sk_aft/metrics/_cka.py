"""Centred kernel alignment."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import check_array, check_consistent_length


def cka(A: Any, B: Any) -> float:
    r"""Return the similarity of two sets of features of the same rows (samples): linear CKA.

    .. math::
        \mathrm{CKA} = \frac{\lVert \bar A^\top \bar B \rVert_F^2}
            {\lVert \bar A^\top \bar A \rVert_F \lVert \bar B^\top \bar B \rVert_F}

    where a bar means centred, column by column. CKA is invariant to rotation, translation and
    isotropic scaling of either side; the widths may differ.

    Parameters
    ----------
    A : array-like of shape (n_rows, d)
        Features.
    B : array-like of shape (n_rows, p)
        Other features of the same rows.

    Returns
    -------
    similarity : float
        Between 0 (no column of A correlates with a column of B) and 1 (equal up to the
        invariances of CKA).

    Raises
    ------
    ValueError
        If all rows of A, or all rows of B, are equal: CKA is then undefined.

    References
    ----------
    Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019,
    arXiv 1905.00414.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_aft.metrics import cka
    >>> A = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
    >>> round(cka(A, 3 * A[:, ::-1] + 1), 6)
    1.0
    """
    a, b = _centred(A, "A"), _centred(B, "B")
    check_consistent_length(a, b)
    if len(a) < max(a.shape[1], b.shape[1]):
        # Inner products of Gram matrices give the same values from smaller matrices.
        a, b = a @ a.T, b @ b.T
        cross, of_a, of_b = np.vdot(a, b), np.vdot(a, a), np.vdot(b, b)
    else:
        cross, of_a, of_b = (np.square(x.T @ y).sum() for x, y in ((a, b), (a, a), (b, b)))
    return float(np.clip(cross / np.sqrt(of_a) / np.sqrt(of_b), 0.0, 1.0))


def _centred(features: Any, name: str) -> np.ndarray:
    array = check_array(features, dtype=np.float64, ensure_min_samples=2, input_name=name)
    if (array == array[0]).all():
        raise ValueError(f"All rows of {name} are equal, so CKA is undefined.")
    array = array - array.mean(axis=0)
    return array / np.abs(array).max()  # so that fourth powers neither overflow nor underflow
