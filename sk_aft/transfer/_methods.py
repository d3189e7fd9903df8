"""Names of the transfer methods."""

from __future__ import annotations

from typing import Any

from torch import nn

from sk_aft.transfer._kernel_alignment import KernelAlignment

METHODS: dict[str, type[nn.Module]] = {"aft": KernelAlignment}


def make_transfer(
    transfer: str | nn.Module,
    n_features: int,
    n_student_features: int | None = None,
    n_outputs: int | None = None,
    **parameters: Any,
) -> nn.Module:
    """Build the transfer objective that a name stands for.

    Parameters
    ----------
    transfer : str or nn.Module
        "aft", or a module from (student features, foundation features) to a scalar, which is
        returned as it is.
    n_features : int
        Width of the foundation features.
    **parameters
        Further arguments of the method.

    Returns
    -------
    transfer : nn.Module
        The objective.

    Raises
    ------
    ValueError
        If the name is unknown; lists the known ones.
    """
    if isinstance(transfer, nn.Module):
        return transfer
    if transfer not in METHODS:
        known = ", ".join(map(repr, METHODS))
        raise ValueError(f"Unknown transfer method {transfer!r}. Known: {known}, or None.")
    return METHODS[transfer](n_features, **parameters)
