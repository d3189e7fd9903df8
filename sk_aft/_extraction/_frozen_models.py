"""Parameters and copies of an extractor, whose models are frozen: clones share them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from sklearn.base import BaseEstimator

from sk_aft._predictors._soft_targets import is_predictor
from sk_aft.backbones import Backbone, resolve_backbone
from sk_aft.store._process import inherit, process_state


class FrozenModels(BaseEstimator):
    """An estimator whose parameter ``model`` holds frozen models.

    Parameters
    ----------
    model : object
        A model, or a list or mapping of models.
    """

    model: Any

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters, without those of the models, which are frozen.

        Parameters
        ----------
        deep : bool, default=True
            Not used; part of scikit-learn's signature.

        Returns
        -------
        parameters : dict
            Names and values.
        """
        return super().get_params(deep=False)

    def set_params(self, **params: Any) -> FrozenModels:
        """Set parameters of the extractor.

        Parameters
        ----------
        **params
            Names and values. Parameters of a model cannot be set: it is frozen, and shared with
            the extractor's clones.

        Returns
        -------
        self : FoundationFeatureExtractor
            The transformer itself.
        """
        nested = [name for name in params if name.startswith("model__")]
        if nested:
            raise ValueError(
                f"Invalid parameter {nested[0]!r} for estimator {self}: foundation models are "
                "frozen, and clones share them. Search over whole models instead, as values of "
                "'model', such as [TeacherPredictions(one), TeacherPredictions(other)]."
            )
        return super().set_params(**params)

    def __sklearn_clone__(self) -> FrozenModels:
        # Parameters are shared: a frozen model need not be copied for every fold, and a
        # copied function would not be recognised as the same one.
        clone = type(self)(**self.get_params(deep=False))
        for name in ("_metadata_request", "_sklearn_output_config"):
            if name in vars(self):
                setattr(clone, name, copy.deepcopy(getattr(self, name)))
        return clone

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {**state, "_session": process_state(self._known_by_identity())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        session = state.pop("_session", {})
        super().__setstate__(state)
        inherit(self._known_by_identity(), session)

    def _known_by_identity(self) -> list:
        """Return the functions and transformers whose copies a worker process must recognise."""
        models = (model for _, model in self._models() if not is_predictor(model))
        return [model for model in models if not _is_known_by_content(model)]

    def _models(self) -> list[tuple[Any, Any]]:
        """Return pairs of a column (None for whole rows) and a model."""
        by_column = self.model if isinstance(self.model, Mapping) else {None: self.model}
        return [
            (column, model)
            for column, models in by_column.items()
            for model in (models if isinstance(models, (list, tuple)) else [models])
        ]


def _is_known_by_content(model: Any) -> bool:
    if isinstance(model, (str, Backbone)):
        return True
    try:
        return resolve_backbone(model).is_persistent
    except (TypeError, ValueError):  # not a model; fit will say so
        return False
