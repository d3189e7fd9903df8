"""What a student is trained on: every "auto" that depends on the rows alone."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from sk_aft._runtime._processes import Processes
from sk_aft._student._training_data import Split, TrainingData, split_rows
from sk_aft.transfer import default_beta
from sk_aft.transfer._methods import which_have

# Parts that are built once, and kept by training that resumes.
_BUILT_ONCE = ("module", "preprocessor", "transfer")


class TransferChoice(NamedTuple):
    """The transfer method and its strength.

    Parameters
    ----------
    method : str, nn.Module, list or None
        The transfer method.
    beta : float
        Its strength; 0 is standard training.
    lacks_features : bool
        Whether a transfer was requested, but there are no foundation features or soft targets.
    """

    method: Any
    beta: float
    lacks_features: bool = False


@dataclass(frozen=True, eq=False)
class TrainingPlan:
    """What one call of ``fit`` or ``partial_fit`` trains on, before the network is known.

    Parameters
    ----------
    transfer : TransferChoice
        What is transferred.
    split : Split
        Training rows and held-out rows.
    n_labeled, n_unlabeled : int
        Number of training rows with and without a target.
    batch_size : int
        Rows per batch.
    unlabeled_fraction : float
        Share of rows without a target in a batch, if there are any.
    mean_weight : float
        Mean weight of the training rows, by which the task loss is divided.
    device : torch.device
        Where the network is trained.
    seed : int
        Seed of the initial weights and of the transfer method.
    split_seed : int or None
        Seed of the validation split.
    is_incremental : bool
        Whether this is one pass of ``partial_fit``.
    processes : Processes
        Those that share each batch.
    """

    transfer: TransferChoice
    split: Split
    n_labeled: int
    n_unlabeled: int
    batch_size: int
    unlabeled_fraction: float
    mean_weight: float
    device: torch.device
    seed: int
    split_seed: int | None
    is_incremental: bool
    processes: Processes

    @classmethod
    def of(
        cls,
        parameters: Mapping[str, Any],
        data: TrainingData,
        transfer: TransferChoice,
        *,
        device: torch.device,
        processes: Processes,
        random: np.random.RandomState,
        chooses_method: bool = False,
        split_seed: int | None = None,
        is_incremental: bool = False,
    ) -> TrainingPlan:
        """Resolve the parameters for some rows; draws seeds from ``random``."""
        seed = random.randint(2**31 - 1)
        fraction = parameters["validation_fraction"] if parameters["early_stopping"] else None
        if fraction is not None and split_seed is None:
            split_seed = random.randint(2**31 - 1)
        split = split_rows(data, fraction, split_seed)
        if chooses_method and not data.can_distill(split.train):
            transfer = transfer._replace(method="aft")  # no probe can be fitted
            if parameters["beta"] == "auto" and transfer.beta > 0:
                transfer = transfer._replace(beta=default_beta("aft"))
        processes.check_batches(parameters["batch_size"], len(split.train))
        labeled = data.labeled_mask[split.train]
        n_labeled = int(labeled.sum())
        # partial_fit uses sample weights as given; fit normalises them to mean 1.
        mean_weight = 1.0
        if data.weights is not None and not is_incremental:
            mean_weight = float(data.weights[split.train[labeled]].mean())
        return cls(
            transfer=transfer,
            split=split,
            n_labeled=n_labeled,
            n_unlabeled=len(labeled) - n_labeled,
            batch_size=parameters["batch_size"],
            unlabeled_fraction=parameters["unlabeled_fraction"],
            mean_weight=mean_weight,
            device=device,
            seed=seed,
            split_seed=split_seed,
            is_incremental=is_incremental,
            processes=processes,
        )


def which_take(parameters: Mapping[str, Any], kept_method: Any = None) -> list[bool]:
    """Return for each active transfer method whether it takes soft targets; "auto" does.

    Parameters
    ----------
    parameters : mapping
        Parameters of the estimator.
    kept_method : optional
        The method of an existing transfer objective, which training that resumes keeps.

    Returns
    -------
    take_soft_targets : list of bool
        Empty if nothing is transferred.
    """
    if parameters["transfer"] is None or parameters["beta"] == 0:
        return []
    method = parameters["transfer"] if kept_method is None else kept_method
    return [True] if method == "auto" else _flags("takes_soft_targets", method, parameters)


def learns_from_all_layers(parameters: Mapping[str, Any]) -> bool:
    """Return whether an active transfer method may learn from all layers; "auto" may.

    Parameters
    ----------
    parameters : mapping
        Parameters of the estimator.

    Returns
    -------
    learns : bool
        False if nothing is transferred.
    """
    method = parameters["transfer"]
    if method is None or parameters["beta"] == 0:
        return False
    return method == "auto" or any(_flags("learns_from_all_layers", method, parameters))


def teaches_by_predictions(transfer: TransferChoice, parameters: Mapping[str, Any]) -> bool:
    """Return whether an active transfer method gives rows without a label targets of their own.

    Parameters
    ----------
    transfer : TransferChoice
        The method and its strength.
    parameters : mapping
        Parameters of the estimator.

    Returns
    -------
    teaches : bool
        False if nothing is transferred.
    """
    if transfer.beta == 0:
        return False
    return any(_flags("has_soft_targets", transfer.method, parameters))


def _flags(attribute: str, method: Any, parameters: Mapping[str, Any]) -> list[bool]:
    own = {
        name.removeprefix("transfer__"): value
        for name, value in parameters.items()
        if name.startswith("transfer__")
    }
    return which_have(attribute, method, own)


def resolve_transfer(
    parameters: Mapping[str, Any],
    data: TrainingData,
    *,
    owner: str,
    is_incremental: bool = False,
    kept_method: Any = None,
    kept_width: int | None = None,
) -> TransferChoice:
    """Return what is transferred; beta is 0 if no method is active, or has anything to learn from.

    Parameters
    ----------
    parameters : mapping
        Parameters of the estimator.
    data : TrainingData
        The rows.
    owner : str
        Class of the estimator, for messages.
    is_incremental : bool, default=False
        Whether this is one pass of ``partial_fit``.
    kept_method : optional
        The method of an existing transfer objective, which training that resumes keeps.
    kept_width : int, optional
        Number of foundation features that training began with.

    Returns
    -------
    transfer : TransferChoice
        Method and strength.

    Raises
    ------
    ValueError
        If ``beta`` requests a transfer but there are no features, if the method needs features
        besides soft targets, or soft targets and all are absent, if the number of features
        differs from that at the start of training, or if batches have one row.
    """
    takes = which_take(parameters, kept_method)
    method = parameters["transfer"] if kept_method is None else kept_method
    is_automatic = method == "auto"
    if takes and data.features is None and data.lacks_soft_targets and not is_incremental:
        raise ValueError(
            f"No row that reached {owner} can be taught: its teachers only predict, and predict no "
            "row, because no labelled row can be predicted by a model of others. Label more rows "
            "of each class, in more groups, or set beta=0."
        )
    if not takes:  # whether features teach is not asked, because they may not be computed yet
        return TransferChoice("aft" if is_automatic else method, 0.0)
    if is_automatic:
        # A piece of partial_fit may be too small for a probe, or hold one class.
        can_distill = data.soft_targets is not None if is_incremental else data.can_distill()
        replaces = data.has_given_targets or is_incremental
        method = "aft" if not can_distill else "probe-kd" if replaces else "pooled-kd"
    if data.features is None and data.soft_targets is None:
        _check_standard_training(parameters["beta"], owner)
        return TransferChoice(method, 0.0, lacks_features=True)
    beta = default_beta(method) if parameters["beta"] == "auto" else float(parameters["beta"])
    if data.lacks_soft_targets and not is_incremental:  # some pieces of partial_fit may lack them
        _explain_absent(method, is_automatic or method == "pooled-kd", owner)
    if data.features is None and not all(takes):
        raise ValueError(
            f"transfer={method!r} needs foundation features, and only soft_targets reached "
            f"{owner}: use transfer='probe-kd', which learns from soft targets alone, or give "
            "features=F, too. A method of your own sets takes_soft_targets = True."
        )
    if data.soft_targets is not None and not any(takes):
        warnings.warn(
            f"transfer={method!r} does not learn from soft_targets, which are ignored: use "
            "'auto', or 'probe-kd' or 'pooled-kd', alone or in a list, or leave soft_targets out. "
            "A method of your own sets takes_soft_targets = True.",
            stacklevel=6,
        )
    width = kept_width if data.features is None else data.features.shape[1]
    if kept_width is not None and width != kept_width:
        raise ValueError(f"features has {width} columns, but training began with {kept_width}.")
    if parameters["batch_size"] == 1:
        raise ValueError(
            "The transfer compares the rows of a batch, so it needs more than batch_size=1: "
            "use a larger batch_size, or beta=0."
        )
    return TransferChoice(method, beta)


def built_with(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of the parts that are built once."""
    return {
        name: value for name, value in parameters.items() if name.partition("__")[0] in _BUILT_ONCE
    }


def check_unchanged(before: Mapping[str, Any], now: Mapping[str, Any], *, built: set[str]) -> None:
    """Raise if a parameter of a part that is kept has changed since the part was built."""
    for name in changed(before, now):
        part = name.partition("__")[0]
        if part in built:
            raise ValueError(
                f"{name} differs from what the training began with, and training that resumes "
                f"keeps its {part}: restore {name}, or start again with fit and "
                "warm_start=False."
            )


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the names of parameters that differ, sorted."""
    return [
        name for name in sorted({*before, *now}) if not _are_same(before.get(name), now.get(name))
    ]


def _are_same(one: Any, other: Any) -> bool:
    return one is other or np.array_equal(one, other)


def _explain_absent(method: Any, learns_from_features: bool, owner: str) -> None:
    """Warn or raise if X should have soft targets, and all of them are absent."""
    message = (
        f"None of the rows that reached {owner} has soft targets: the extractor predicts them for "
        "no row, such as if too few distinct rows of a class are labelled"
    )
    if not learns_from_features:
        raise ValueError(
            f"{message}. transfer={method!r} learns from them: label more rows, give soft_targets, "
            "or use transfer='aft', which learns from the features."
        )
    warnings.warn(
        f"{message}. The student learns from the features instead, with transfer={method!r}.",
        stacklevel=7,
    )


def _check_standard_training(beta: Any, owner: str) -> None:
    """Warn or raise if a transfer was requested but there are no features."""
    order = (
        "If a FoundationFeatureExtractor comes before it, a step between the two (a scaler, a "
        "sampler, bagging, a ColumnTransformer, set_output) made a plain table of the foundation "
        "model's features, which are now the rows: move that step before the extractor, so "
        f"that the extractor is right before {owner}. Without an extractor, call "
        "fit(X, y, features=F) with an array of shape (n_rows, n_features)."
    )
    if beta == "auto":
        warnings.warn(
            f"No foundation features reached {owner}, so this is standard training. {order} "
            "Set beta=0 if standard training is what you want.",
            stacklevel=7,
        )
    else:
        raise ValueError(
            f"beta={beta} needs foundation features, and none reached {owner}. {order} "
            "beta=0 trains without them."
        )
