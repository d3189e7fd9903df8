"""Names of the transfer methods."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from torch import nn

from sk_aft.transfer._b_tuning import BTuning
from sk_aft.transfer._base import TransferMethod
from sk_aft.transfer._combination import Combination
from sk_aft.transfer._factor_transfer import FactorTransfer
from sk_aft.transfer._feature_distillation import FeatureDistillation
from sk_aft.transfer._feature_regression import FeatureRegression
from sk_aft.transfer._kernel_alignment import KernelAlignment
from sk_aft.transfer._kernel_distillation import KernelDistillation
from sk_aft.transfer._pooled_distillation import PooledDistillation
from sk_aft.transfer._probe_distillation import ProbeDistillation
from sk_aft.transfer._product_kernel_alignment import ProductKernelAlignment
from sk_aft.transfer._relational_distillation import RelationalDistillation

_SIZES = ("n_features", "n_student_features", "n_outputs", "feature_slices")


class _Named(NamedTuple):
    """The class that a name stands for, and parameters that the name fixes."""

    method: type[TransferMethod]
    preset: Mapping[str, Any] = {}
    is_by_column: bool = False  # feature_slices are per DataFrame column, not per model

    @property
    def accepted(self) -> list[str]:
        """Parameters that a user may set."""
        return [name for name in self._parameters if name not in (*_SIZES, *self.preset)]

    @property
    def sizes(self) -> dict[str, bool]:
        """Sizes that the class takes, and whether each is required."""
        return {
            name: parameter.default is parameter.empty
            for name, parameter in self._parameters.items()
            if name in _SIZES
        }

    @property
    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        if self.method.__init__ is TransferMethod.__init__:
            return {}  # nn.Module.__init__ accepts any arguments
        return inspect.signature(self.method).parameters


METHODS: dict[str, _Named] = {
    "aft": _Named(KernelAlignment),
    "aft-fixed": _Named(KernelAlignment, {"weights": "fixed"}),
    "aft-dense": _Named(KernelAlignment, {"weights": "dense"}),
    "aft-rbf": _Named(KernelAlignment, {"kernel": "rbf"}),
    "aft-product": _Named(ProductKernelAlignment, is_by_column=True),
    "feature-regression": _Named(FeatureRegression),
    "kd": _Named(FeatureDistillation),
    "rkd": _Named(RelationalDistillation),
    "ft": _Named(FactorTransfer),
    "kkd": _Named(KernelDistillation),
    "b-tuning": _Named(BTuning),
    "probe-kd": _Named(ProbeDistillation),
    "pooled-kd": _Named(PooledDistillation),
}

Transfer: TypeAlias = str | nn.Module | Sequence[tuple[str | nn.Module, float]]


def make_transfer(
    transfer: Transfer,
    n_features: int,
    *,
    n_student_features: int | None = None,
    n_outputs: int | None = None,
    feature_slices: Mapping[str, slice] | None = None,
    column_slices: Mapping[Any, slice] | None = None,
    **parameters: Any,
) -> nn.Module:
    """Build the transfer objective that a name stands for.

    Parameters
    ----------
    transfer : str, nn.Module, or list of (str or nn.Module, float)
        A name from the table below; a module that maps (student features, foundation features)
        to a scalar, returned unchanged; or a list of these with their beta, for a weighted sum.
        Parts of a list with beta 0 are left out.
    n_features : int
        Width of the foundation features.
    n_student_features : int, optional
        Width of the student's features.
    n_outputs : int, optional
        Number of the student's outputs.
    feature_slices : mapping of str to slice, optional
        The columns of each model in the foundation features.
    column_slices : mapping of str to slice, optional
        The columns of the foundation features that come from each column of a DataFrame.
    **parameters
        Further arguments of the method. For a list, ``NAME__argument``, where hyphens of the
        name are replaced by underscores; ``NAME__beta`` replaces the beta in the list.

    Returns
    -------
    transfer : nn.Module
        The objective.

    Raises
    ------
    ValueError
        If a name or a parameter is unknown (the message lists the known ones), or if a size
        that a method requires is missing.

    Notes
    -----
    ====================  ======================================================
    "aft"                 `KernelAlignment`
    "aft-fixed"           the same with ``weights="fixed"``
    "aft-dense"           the same with ``weights="dense"``
    "aft-rbf"             the same with ``kernel="rbf"``
    "aft-product"         `ProductKernelAlignment`, over the columns of a DataFrame
    "feature-regression"  `FeatureRegression`
    "kd"                  `FeatureDistillation`
    "rkd"                 `RelationalDistillation`
    "ft"                  `FactorTransfer`
    "kkd"                 `KernelDistillation`
    "b-tuning"            `BTuning`
    "probe-kd"            `ProbeDistillation`
    "pooled-kd"           `PooledDistillation`
    ====================  ======================================================

    Examples
    --------
    >>> from sk_aft.transfer import make_transfer
    >>> make_transfer("aft", 384, kernel="rbf").kernel
    'rbf'
    >>> both = make_transfer([("aft", 10), ("probe-kd", 1)], 384, probe_kd__temperature=2)
    >>> both.betas, both.methods[1].temperature
    ([10.0, 1.0], 2)
    """
    sizes = {
        "n_features": n_features,
        "n_student_features": n_student_features,
        "n_outputs": n_outputs,
        "feature_slices": feature_slices,
        "column_slices": column_slices,
    }
    if isinstance(transfer, (str, nn.Module)):
        return _make_one(transfer, sizes, parameters, prefix="")
    return Combination(
        [
            (_make_one(part, sizes, own, prefix=f"{_prefix(part)}__"), beta)
            for part, beta, own in _active_parts(transfer, parameters)
        ]
    )


def default_beta(transfer: Transfer) -> float:
    """Return the beta that a transfer method uses unless it is tuned, without building it.

    Parameters
    ----------
    transfer : str, nn.Module, or list of (str or nn.Module, float)
        As for `make_transfer`.

    Returns
    -------
    beta : float
        The method's ``default_beta``; 1 for a module without this attribute.

    Raises
    ------
    ValueError
        If a name is unknown. The message lists the known ones.

    Examples
    --------
    >>> from sk_aft.transfer import default_beta
    >>> default_beta("aft")
    10.0
    """
    if isinstance(transfer, nn.Module):
        return float(getattr(transfer, "default_beta", 1.0))
    if isinstance(transfer, str):
        return _look_up(transfer).method.default_beta
    _checked_pairs(transfer)
    return Combination.default_beta


def which_have(
    attribute: str, transfer: Transfer, parameters: Mapping[str, Any] | None = None
) -> list[bool]:
    """Return for each active method of a transfer whether a flag of its class is set.

    Parameters
    ----------
    attribute : str
        The flag, such as "takes_soft_targets".
    transfer : str, nn.Module, or list of (str or nn.Module, float)
        As for `make_transfer`.
    parameters : mapping, optional
        The further arguments of `make_transfer`; ``NAME__beta`` replaces the beta in a list.

    Returns
    -------
    flags : list of bool
        One item for a name or a module, and one for each part of a list whose beta is not 0.
    """
    if isinstance(transfer, str):
        return [getattr(_look_up(transfer).method, attribute)]
    if isinstance(transfer, Combination):
        transfer = list(zip(transfer.methods, transfer.betas, strict=True))
        if not transfer:
            return []
    if isinstance(transfer, nn.Module):
        return [getattr(transfer, attribute, False)]
    parts = _active_parts(transfer, parameters or {})
    return [flag for part in parts for flag in which_have(attribute, part.transfer)]


class _Part(NamedTuple):
    """A part of a list of methods, its beta, and what was set for it."""

    transfer: str | nn.Module
    beta: float
    parameters: Mapping[str, Any]


def _active_parts(transfer: Any, parameters: Mapping[str, Any]) -> list[_Part]:
    """Return the parts of a list whose beta is not 0."""
    pairs = _checked_pairs(transfer)
    of_parts: dict[str, dict[str, Any]] = {
        _prefix(part): {} for part, _ in pairs if isinstance(part, str)
    }
    for name, value in parameters.items():
        prefix, separator, parameter = name.partition("__")
        if not separator or prefix not in of_parts:
            known = [f"transfer__{prefix}__..." for prefix in of_parts]
            raise ValueError(f"Invalid parameter transfer__{name}: this list takes {known}.")
        of_parts[prefix][parameter] = value
    parts = []
    for part, beta in pairs:
        own = of_parts.get(_prefix(part), {})
        parts.append(_Part(part, own.pop("beta", beta), own))
    return [part for part in parts if part.beta != 0]


def _make_one(
    transfer: str | nn.Module, sizes: Mapping[str, Any], parameters: Mapping[str, Any], prefix: str
) -> nn.Module:
    if isinstance(transfer, nn.Module):
        if parameters:
            raise ValueError(
                f"Invalid parameter transfer__{prefix}{next(iter(parameters))}: the "
                f"{type(transfer).__name__} is already an instance, so it takes no parameters."
            )
        return transfer
    named = _look_up(transfer)
    for name in parameters:
        if name not in named.accepted:
            raise ValueError(
                f"Invalid parameter transfer__{prefix}{name}: {named.method.__name__} takes "
                f"{named.accepted}. The method is {transfer!r}: name another with transfer=."
            )
    if named.is_by_column:
        if not sizes["column_slices"]:
            raise ValueError(
                f"{transfer!r} needs foundation models of several columns of a DataFrame: give the "
                "extractor a mapping of columns, model={'image': ..., 'text': ...}."
            )
        sizes = {**sizes, "feature_slices": sizes["column_slices"]}
    missing = [name for name, needed in named.sizes.items() if needed and sizes[name] is None]
    if missing:
        raise ValueError(f"{transfer!r} needs {' and '.join(missing)}.")
    return named.method(**{name: sizes[name] for name in named.sizes}, **named.preset, **parameters)


def _look_up(name: str) -> _Named:
    if name not in METHODS:
        known = ", ".join(map(repr, METHODS))
        raise ValueError(f"Unknown transfer method {name!r}. Known: {known}, or None.")
    return METHODS[name]


def _checked_pairs(transfer: Any) -> list[tuple[str | nn.Module, float]]:
    pairs = list(transfer)
    if not pairs:
        raise ValueError("transfer is an empty list: give at least one method, or None.")
    names = []
    for pair in pairs:
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2):
            raise ValueError(
                f"transfer is a list with {pair!r} in it, expected pairs of a method and its "
                'beta, such as [("aft", 10), ("probe-kd", 1)].'
            )
        if isinstance(pair[0], str):
            _look_up(pair[0])
            names.append(pair[0])
    if len(set(names)) < len(names):
        raise ValueError(f"transfer names a method twice: {names}.")
    return pairs


def _prefix(part: str | nn.Module) -> str:
    """Return the prefix of a part's parameters; empty for modules, which take none."""
    return part.replace("-", "_") if isinstance(part, str) else ""
