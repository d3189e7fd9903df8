"""Parameters handled as in scikit-learn, plus those that skorch passes on by prefix."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.utils.metadata_routing import UNCHANGED
from torch import nn

# What stands for parameters of skorch that a student does not have.
_INSTEAD_OF_SKORCHS = {
    "train_split": "early_stopping=True and validation_fraction=",
    "iterator_train": "batch_size=",
    "iterator_valid": "batch_size=",
    "dataset": "preprocessor=",
    "predict_nonlinearity": "a module that returns logits",
}

PREFIXES = ("module", "optimizer", "criterion", "transfer", "preprocessor", "callbacks", "compile")


class PrefixedParameters(BaseEstimator):
    """Parameters of the signature, and prefixed ones such as ``module__x``.

    skorch builds its parameters from all attributes of an instance, and re-initialises parts of a
    fitted net when a parameter is set. Here parameters are those given to ``__init__``, and
    changes take effect at the next ``fit``.
    """

    preprocessor: Any

    _get_param_names: Any = classmethod(BaseEstimator._get_param_names.__func__)
    _validate_params = BaseEstimator._validate_params
    get_metadata_routing = BaseEstimator.get_metadata_routing
    __repr__ = BaseEstimator.__repr__

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # scikit-learn reads the parameters from the signature, and **kwargs is not a parameter.
        _, *parameters = inspect.signature(cls.__init__).parameters.values()
        named = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
        cls.__signature__ = inspect.Signature(named)

    def __setattr__(self, name: str, value: Any) -> None:
        # skorch tracks fitted torch components, whose names end in "_"; parameters are just stored.
        if name.endswith("_"):
            super().__setattr__(name, value)
        else:
            object.__setattr__(self, name, value)

    def _store_extra_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Keep prefixed arguments of ``__init__``, such as ``module__x``; reject others."""
        for name, value in parameters.items():
            if not _is_prefixed(name):
                instead = _INSTEAD_OF_SKORCHS.get(name)
                raise TypeError(
                    f"{type(self).__name__}.__init__() got an unexpected keyword argument {name!r}"
                    + (f": use {instead}." if instead else "")
                )
            setattr(self, name, value)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters, including those set by prefix, such as ``module__x``.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include the parameters of a preprocessor that is an estimator.

        Returns
        -------
        parameters : dict
            Names and values.
        """
        parameters = BaseEstimator.get_params(self, deep=deep)
        return {**parameters, **{k: v for k, v in vars(self).items() if _is_prefixed(k)}}

    def set_params(self, **params: Any) -> PrefixedParameters:
        """Set parameters; they take effect at the next ``fit``.

        Parameters
        ----------
        **params
            Names and values; ``module__x``, ``optimizer__x``, ``criterion__x``,
            ``transfer__x``, ``preprocessor__x``, ``callbacks__x`` and ``compile__x`` are passed
            on.

        Returns
        -------
        self : estimator
            The estimator itself.
        """
        own = {}
        for name, value in params.items():
            is_nested = name.startswith("preprocessor__") and hasattr(
                params.get("preprocessor", self.preprocessor), "set_params"
            )
            if _is_prefixed(name) and not is_nested:
                setattr(self, name, value)
            else:
                if is_nested:
                    self.__dict__.pop(name, None)  # overrides the constructor's argument
                own[name] = value
        BaseEstimator.set_params(self, **own)
        return self

    def set_fit_request(
        self,
        *,
        features: bool | str | None = UNCHANGED,
        soft_targets: bool | str | None = UNCHANGED,
        sample_weight: bool | str | None = UNCHANGED,
        X_unlabeled: bool | str | None = UNCHANGED,
    ) -> PrefixedParameters:
        """Set which arguments a pipeline, search or ensemble routes to ``fit``.

        Needs ``sklearn.set_config(enable_metadata_routing=True)``; see the chapter on metadata
        routing in scikit-learn's user guide.

        Parameters
        ----------
        features : bool, str or None
            True routes the argument, False does not, a string routes the argument of that name,
            and None raises if it is given. Default: unchanged.
        soft_targets, sample_weight, X_unlabeled : bool, str or None
            As for ``features``.

        Returns
        -------
        self : estimator
            The estimator itself.
        """
        requests = _changed(
            features=features,
            soft_targets=soft_targets,
            sample_weight=sample_weight,
            X_unlabeled=X_unlabeled,
        )
        return super().set_fit_request(**requests)

    def set_partial_fit_request(
        self,
        *,
        features: bool | str | None = UNCHANGED,
        sample_weight: bool | str | None = UNCHANGED,
    ) -> PrefixedParameters:
        """Set which arguments are routed to ``partial_fit``; see `set_fit_request`.

        Parameters
        ----------
        features, sample_weight : bool, str or None
            As for `set_fit_request`.

        Returns
        -------
        self : estimator
            The estimator itself.
        """
        requests = _changed(features=features, sample_weight=sample_weight)
        return super().set_partial_fit_request(**requests)


def reject_unknown(
    prefix: str, part: Any, names: Iterable[str], others: Mapping[str, Any] | None = None
) -> None:
    """Raise if a parameter set as ``prefix__name`` does not exist.

    Parameters
    ----------
    prefix : str
        Such as "module".
    part : type, callable or torch.nn.Module
        The class or function that gets the parameters; an instance of a module gets none.
    names : iterable of str
        Names of the parameters, without the prefix.
    others : mapping of str to callable, optional
        What could have been chosen instead, and how; the message says which takes the parameter.
    """
    if isinstance(part, nn.Module):
        if names := sorted(names):
            kind = type(part).__name__
            raise ValueError(
                f"{prefix} is an instance of {kind}, so {names} of {prefix}__ have no "
                f"effect: give the class instead, {prefix}={kind}."
            )
        return
    made = getattr(part, "func", part)  # of functools.partial
    accepted = inspect.signature(part).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    for name in names:
        if name not in accepted and not takes_any:
            fitting = [
                f" It is a parameter of {other.__name__}, of {choice}."
                for choice, other in (others or {}).items()
                if name in inspect.signature(other).parameters
            ]
            raise ValueError(
                f"Invalid parameter {prefix}__{name}: {getattr(made, '__name__', made)} takes "
                f"{sorted(accepted)}.{''.join(fitting)}"
            )


def _is_prefixed(name: str) -> bool:
    prefix, separator, rest = name.partition("__")
    return bool(separator and rest) and prefix in PREFIXES


def _changed(**requests: bool | str | None) -> dict[str, Any]:
    return {name: request for name, request in requests.items() if request != UNCHANGED}
