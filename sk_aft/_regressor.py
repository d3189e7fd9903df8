"""AFTRegressor: a small network for regression that learned from foundation features."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import _fit_context
from skorch import NeuralNetRegressor
from torch import nn

from sk_aft._student._estimator import StudentEstimator
from sk_aft._student._targets import NumericTargets
from sk_aft.optim import RowwiseAdamW


class AFTRegressor(StudentEstimator, NeuralNetRegressor):
    """A small network that learns numbers from targets and foundation features.

    As `AFTClassifier`, which explains the parameters at more length. Targets are standardised
    for training and predictions scaled back, so the learning rate and ``beta`` do not depend on
    the unit of the targets.

    Parameters
    ----------
    module : "auto", type, callable or torch.nn.Module, default="auto"
        The network; its outputs are (B, n_targets), or (B,) for one target.
    transfer : str, torch.nn.Module, list of (method, strength) or None, default="auto"
        The transfer objective, see `AFTClassifier`.
    beta : "auto" or float >= 0, default="auto"
        Strength of the transfer.
    preprocessor : "auto", estimator or None, default="auto"
        Turns raw rows into numbers, or into sequences of tokens.
    lr : float, default=1e-3
        Learning rate of the network at the start.
    transfer_lr : float, default=1e-2
        Learning rate of the transfer objective's own parameters.
    optimizer : type, default=sk_aft.optim.RowwiseAdamW
        Class of the optimizer.
    criterion : type or torch.nn.Module, default=torch.nn.MSELoss
        Task loss, from outputs and standardised targets, both (B, n_targets).
    max_epochs : int or "auto", default="auto"
        Passes over the training rows. "auto" makes 50, or as many as make 200 steps: few rows
        make few steps a pass.
    batch_size : int, default=128
        Rows a batch.
    lr_schedule : {"cosine", "constant"}, default="cosine"
        Whether the learning rates fall to zero along a cosine.
    early_stopping : bool, default=False
        Whether to hold rows out, stop when their R² no longer improves, and go back to the best
        weights.
    validation_fraction : float, default=0.1
        Share of the rows held out by ``early_stopping``.
    n_iter_no_change : int, default=10
        Epochs without improvement after which ``early_stopping`` stops.
    warm_start : bool, default=False
        Whether another `fit` resumes the training instead of starting anew; the
        network, the preprocessor, the transfer objective and the held out rows are kept, so
        parameters of these may not change.
    missing_label : int, float, str or None, default=None
        What stands in y for a label that is not known, such as -1 or NaN (which stands for None
        and ``pandas.NA``, too). Rows so marked take part in the transfer, not in the task loss.
        None says that all are known.
    unlabeled_fraction : float, default=0.5
        Share of each batch that is rows without a label, where there are any. An epoch then
        sees every row at least once: the kind that there is less of is repeated.
    callbacks : list or None, default=None
        Further callbacks of skorch.
    random_state : int, RandomState or None, default=None
        Determines initial weights, batches and the validation split.
    device : str, default="auto"
        Where to train and predict.
    precision : {"float32", "bf16-mixed", "16-mixed"}, default="float32"
        Numbers that the network computes with while it is trained.
    compile : bool, default=False
        Whether to train with `torch.compile`.
    verbose : int, default=0
        1 prints a line an epoch.
    **kwargs
        ``module__x``, ``optimizer__x``, ``criterion__x``, ``transfer__x``, ``compile__x`` and
        ``preprocessor__x``, passed on as ``x``; ``callbacks__name__x`` is passed to the callback
        of that name.

    Attributes
    ----------
    module_ : torch.nn.Module
        The trained network.
    preprocessor_ : estimator or None
        The fitted preprocessor.
    feature_weights_ : ndarray of shape (n_foundation_features,)
        How much each foundation feature counts, between 0 and 1; only where the method used has
        such weights, as "aft" has.
    chosen_transfer_ : str, torch.nn.Module, list of (method, strength) or None
        The transfer method that was used, see `AFTClassifier`.
    beta_ : float
        The strength that was used.
    beta_trials_ : dict of float to float
        Mean squared error of the standardised target on held-out rows after the short trainings,
        by strength; only where ``beta="auto"`` made them for a method that was named.
    transfer_trials_ : dict of str to float
        The same by method, "none" included; only where ``transfer="auto"`` made them.
    history_ : skorch.history.History
        Losses, their terms, times and the mean weight of each model's features, of every epoch.
    n_iter_ : int
        Epochs run.
    loss_curve_ : list of float
        Mean loss of each epoch, the transfer's part included.
    validation_scores_ : list of float or None
        Score on the held out rows after each epoch; None without ``early_stopping``.
    n_features_in_ : int
        Number of columns; only for 2-D numbers and DataFrames of several kinds of columns.
    feature_names_in_ : ndarray of str
        Names of the columns, where X was such a DataFrame or one of numbers, with string names.

    See Also
    --------
    AFTClassifier : The same for labels.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.decomposition import PCA
    >>> from sk_aft import AFTRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> features = PCA(5).fit_transform(X)
    >>> student = AFTRegressor(beta=1, max_epochs=20, random_state=0)
    >>> bool(student.fit(X, y, features=features).score(X, y) > 0.4)
    True
    """

    _targets_type = NumericTargets

    def __init__(
        self,
        module: Any = "auto",
        *,
        transfer: Any = "auto",
        beta: float | str = "auto",
        preprocessor: Any = "auto",
        lr: float = 1e-3,
        transfer_lr: float = 1e-2,
        optimizer: Any = RowwiseAdamW,
        criterion: Any = nn.MSELoss,
        max_epochs: int | str = "auto",
        batch_size: int = 128,
        lr_schedule: str = "cosine",
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        warm_start: bool = False,
        missing_label: Any = None,
        unlabeled_fraction: float = 0.5,
        callbacks: Any = None,
        random_state: Any = None,
        device: Any = "auto",
        precision: str = "float32",
        compile: bool = False,
        verbose: int = 0,
        **kwargs: Any,
    ) -> None:
        self.module = module
        self.transfer = transfer
        self.beta = beta
        self.preprocessor = preprocessor
        self.lr = lr
        self.transfer_lr = transfer_lr
        self.optimizer = optimizer
        self.criterion = criterion
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr_schedule = lr_schedule
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.missing_label = missing_label
        self.unlabeled_fraction = unlabeled_fraction
        self.callbacks = callbacks
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.compile = compile
        self.verbose = verbose
        self._store_extra_parameters(kwargs)

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        features: Any = None,
        sample_weight: Any = None,
        X_unlabeled: Any = None,
    ) -> AFTRegressor:
        """Train the network.

        Parameters
        ----------
        X : FoundationFeatures, or list, array, Series or DataFrame of n_rows rows
            What a `FoundationFeatureExtractor` returned, or plain rows: 2-D numbers, texts,
            images, or a DataFrame with columns of several of these kinds.
        y : array-like of shape (n_rows,) or (n_rows, n_targets)
            Numbers to predict.
        features : array-like of shape (n_rows, n_foundation_features), optional
            Foundation features of plain rows.
        sample_weight : array-like of shape (n_rows,), optional
            Weights of the rows in the task loss; the transfer counts every row alike.
        X_unlabeled : FoundationFeatures, optional
            Rows without labels; they take part in the transfer. Reaches this method through
            ``Pipeline(..., transform_input=["X_unlabeled"])``.

        Returns
        -------
        self : AFTRegressor
            The fitted estimator.

        Raises
        ------
        ValueError
            If rows, targets, features or weights cannot be used; says which and why, before any
            training.
        sk_aft.exceptions.DivergenceError
            If the loss becomes infinite or NaN; a ValueError, too.
        KeyboardInterrupt
            If it is interrupted. An estimator that was fitted before stays as it was; one that was
            not keeps what whole epochs have taught it.
        """
        self._fit(X, y, features, sample_weight, X_unlabeled)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self,
        X: Any,
        y: Any = None,
        classes: Any = None,
        *,
        features: Any = None,
        sample_weight: Any = None,
    ) -> AFTRegressor:
        """Train the network for one pass over some rows, resuming what it learned.

        The first call builds the network and fits the preprocessor and the scale of the targets;
        later ones keep these. The learning rate stays at ``lr``.

        Parameters
        ----------
        X : FoundationFeatures, or list, array, Series or DataFrame of n_rows rows
            As for `fit`.
        y : array-like of shape (n_rows,) or (n_rows, n_targets)
            Numbers to predict.
        classes : ignored
            All networks of skorch have it.
        features : array-like of shape (n_rows, n_foundation_features), optional
            Foundation features of plain rows.
        sample_weight : array-like of shape (n_rows,), optional
            Weights of the rows in the task loss.

        Returns
        -------
        self : AFTRegressor
            The fitted estimator.
        """
        self._fit(X, y, features, sample_weight, incremental=True)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the predicted numbers.

        Parameters
        ----------
        X : FoundationFeatures or rows as for `fit`
            Rows. Foundation features are neither needed nor computed.

        Returns
        -------
        predictions : ndarray of shape (n_rows,) or (n_rows, n_targets)
            In the shape and unit of the targets.
        """
        return self._student.targets.decode(self.forward(X))

    @property
    def predict_proba(self) -> Any:
        """Not offered: skorch's would return predictions."""
        raise AttributeError("AFTRegressor has no predict_proba; use predict.")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
