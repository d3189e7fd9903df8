"""AFTClassifier: a small network for classification that learned from foundation features."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils._param_validation import StrOptions
from skorch import NeuralNetClassifier
from torch import nn

from sk_aft._student._estimator import StudentEstimator
from sk_aft._student._targets import ClassTargets
from sk_aft.optim import RowwiseAdamW


class AFTClassifier(StudentEstimator, NeuralNetClassifier):
    """A small network that learns from labels and foundation features, and predicts without them.

    The loss is the task's plus ``beta`` times a transfer objective that charges the network for
    information in its features which the foundation features do not hold (Adaptive Feature
    Transfer). Predictions take raw rows and run the small network alone.

    Parameters
    ----------
    module : "auto", type, callable or torch.nn.Module, default="auto"
        The network. "auto" takes `sk_aft.modules.MLP` for 2-D numbers, `sk_aft.modules.ResNet`
        for images, `sk_aft.modules.TextBag` for texts and `sk_aft.modules.MixedNet` for columns
        of several kinds. A class is built with the ``module__x`` parameters, and with
        ``n_inputs``, ``n_channels``, ``n_tokens``, ``parts`` and ``n_outputs`` as found in the
        data if its constructor has arguments of these names. An instance is copied, and trained
        on from the weights it has. ``forward`` returns (logits, features), or logits only: then
        the features are the input of the last ``torch.nn.Linear`` that runs. Of columns of
        several kinds it gets the parts that the preprocessor makes, by their names; features may
        be a tuple, whose outer product is meant.
    transfer : str, torch.nn.Module, list of (method, strength) or None, default="auto"
        The transfer objective. "auto" is "aft" where ``beta`` is a number or a ``transfer__x`` is
        set; else short trainings choose between "aft", "probe-kd", both and none. Or a name
        ("aft", "aft-fixed", "aft-dense", "aft-rbf", "aft-product", "feature-regression", "kd",
        "rkd", "ft", "kkd", "b-tuning" or "probe-kd", see `sk_aft.transfer.make_transfer`), a
        module from student features (B, p) and foundation features (B, d) to a scalar, or
        several of these with their strengths, such as
        ``[("aft", 10), ("probe-kd", 1)]``. None is standard training. ``transfer__x`` reaches
        the method's arguments, ``transfer__NAME__x`` those of one of several.
    beta : "auto" or float >= 0, default="auto"
        Strength of the transfer; multiplies the strengths of a list. 0 is standard training, bit
        for bit. "auto" lets `fit` make short trainings, where 200 rows or more have labels:
        with ``transfer="auto"`` that which does best on held-out rows is taken (50 being the
        strength of "aft", 1 that of "probe-kd", and 10 and 1 those of both), or 0 if that harms;
        `fit` takes two to five times as long. A method that is named has its own strength (10
        for "aft", as published, and 1 for a list), unless that harms: then a tenth of it, or 0,
        found in short trainings, too. With fewer labels, and in `partial_fit`, "auto" is the
        method's own, and that of "aft" for ``transfer="auto"``. Without foundation features, it is
        0 and warns.
    preprocessor : "auto", estimator or None, default="auto"
        Turns raw rows into numbers; fitted on the training rows and part of the fitted
        estimator. "auto" takes `sklearn.preprocessing.StandardScaler`,
        `sk_aft.preprocessing.ImageResizer` or `sk_aft.preprocessing.NgramTokenizer`, and for
        columns of several kinds `sk_aft.preprocessing.ColumnPreprocessor`. An estimator gets a
        DataFrame of several kinds of columns as it is. One that returns sequences of tokens, an
        array of dtype object of 1-D arrays, goes with a network whose ``forward`` takes
        ``tokens``, (B, longest) and padded with zeros, and ``lengths``, (B,); texts of like
        length share a batch. ``n_tokens`` is then one more than the largest token that training
        has; ``module__n_tokens`` overrules it, for a vocabulary that is known before.
    lr : float, default=1e-3
        Learning rate of the network at the start.
    transfer_lr : float, default=1e-2
        Learning rate of the transfer objective's own parameters, as published.
    optimizer : type, default=sk_aft.optim.RowwiseAdamW
        Class of the optimizer, which is AdamW; ``optimizer__x`` reaches its arguments.
    criterion : type or torch.nn.Module, default=torch.nn.CrossEntropyLoss
        Task loss, from logits (B, n_classes) and class numbers (B,).
    max_epochs : int or "auto", default="auto"
        Passes over the training rows. "auto" makes 50, or as many as make 200 steps: few rows
        make few steps a pass.
    batch_size : int, default=128
        Rows a batch, also the rows whose kernels are compared.
    lr_schedule : {"cosine", "constant"}, default="cosine"
        Whether the learning rates fall to zero along a cosine over all steps.
    early_stopping : bool, default=False
        Whether to hold ``validation_fraction`` of the rows out, stop when their accuracy no
        longer improves, and go back to the best weights.
    validation_fraction : float, default=0.1
        Share of the rows held out by ``early_stopping``, stratified by class.
    n_iter_no_change : int, default=10
        Epochs without improvement after which ``early_stopping`` stops.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the task loss.
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
        Determines initial weights, batches and the validation split. The global random state
        of torch stays as it was.
    device : str, default="auto"
        Where to train and predict; "auto" takes a GPU if there is one.
    precision : {"float32", "bf16-mixed", "16-mixed"}, default="float32"
        Mixed precision trains larger networks faster where 16-bit matrices are multiplied faster,
        and in half the memory: "bf16-mixed" on GPUs, and CPUs, that have bfloat16; "16-mixed"
        on older GPUs (on CPUs it is slower). The weights, losses, transfer and
        predictions stay in float32.
    compile : bool, default=False
        Whether to train with `torch.compile`, which takes seconds to a minute at first, and on a
        CPU a C++ compiler. Meant for larger networks on GPUs. ``module_`` is not
        compiled, so it is saved and predicts as always. ``compile__x`` reaches the arguments of
        `torch.compile`.
    verbose : int, default=0
        1 prints a line an epoch.
    **kwargs
        ``module__x``, ``optimizer__x``, ``criterion__x``, ``transfer__x``, ``compile__x`` and
        ``preprocessor__x``, passed on as ``x``; also settable by ``set_params`` and in grids.
        ``callbacks__name__x`` is passed to the callback of that name, ``callbacks__name=None``
        leaves it out: "epoch_timer", "lr_scheduler", "early_stopping", "print_log" or one of
        ``callbacks``, which may hold ("name", callback) pairs.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    module_ : torch.nn.Module
        The trained network.
    preprocessor_ : estimator or None
        The fitted preprocessor.
    feature_weights_ : ndarray of shape (n_foundation_features,)
        How much each foundation feature counts, between 0 and 1; only where the method used has
        such weights, as "aft" has.
    chosen_transfer_ : str, torch.nn.Module, list of (method, strength) or None
        The transfer method that was used, as ``transfer`` takes it; where
        ``beta_`` is 0, nothing was transferred whatever it says. Training that resumes, with
        ``warm_start`` or ``partial_fit``, keeps it.
    beta_ : float
        The strength that was used.
    beta_trials_ : dict of float to float
        What share of held-out rows the short trainings got wrong, by strength; only where
        ``beta="auto"`` made them for a method that was named.
    transfer_trials_ : dict of str to float
        The same by method, "none" included; only where ``transfer="auto"`` made them.
    transfer_ : torch.nn.Module
        The transfer objective that was used; not where ``beta_`` is 0.
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
    FoundationFeatureExtractor : Puts foundation features beside raw rows.
    AFTRegressor : The same for numbers to predict.

    References
    ----------
    Qiu et al., "Transferring Knowledge from Large Foundation Models to Small Downstream
    Models", ICML 2024, arXiv 2406.07337.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.pipeline import make_pipeline
    >>> from sk_aft import AFTClassifier, FoundationFeatureExtractor
    >>> X, y = load_iris(return_X_y=True)
    >>> teacher = PCA(2).fit(X)  # any model that makes features
    >>> pipe = make_pipeline(
    ...     FoundationFeatureExtractor(teacher), AFTClassifier(lr=0.01, random_state=0)
    ... )
    >>> bool(pipe.fit(X, y).score(X, y) > 0.9)
    True
    >>> student = pipe[-1]  # complete by itself
    >>> student.predict(X[:2])
    array([0, 0])
    """

    _targets_type = ClassTargets

    _parameter_constraints: dict = {
        **StudentEstimator._parameter_constraints,
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

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
        criterion: Any = nn.CrossEntropyLoss,
        max_epochs: int | str = "auto",
        batch_size: int = 128,
        lr_schedule: str = "cosine",
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        class_weight: Any = None,
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
        self.class_weight = class_weight
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
    ) -> AFTClassifier:
        """Train the network.

        Parameters
        ----------
        X : FoundationFeatures, or list, array, Series or DataFrame of n_rows rows
            What a `FoundationFeatureExtractor` returned, or plain rows: 2-D numbers, texts,
            images, or a DataFrame with columns of several of these kinds.
        y : array-like of shape (n_rows,)
            Labels of any type.
        features : array-like of shape (n_rows, n_foundation_features), optional
            Foundation features of plain rows.
        sample_weight : array-like of shape (n_rows,), optional
            Weights of the rows in the task loss; the transfer counts every row alike.
        X_unlabeled : FoundationFeatures, optional
            Rows without labels; they take part in the transfer. Reaches this method through
            ``Pipeline(..., transform_input=["X_unlabeled"])``.

        Returns
        -------
        self : AFTClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            If rows, labels, features or weights cannot be used; says which and why, before any
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
    ) -> AFTClassifier:
        """Train the network for one pass over some rows, resuming what it learned.

        The first call builds the network and fits the preprocessor; later ones keep these. The
        learning rate stays at ``lr``.

        Parameters
        ----------
        X : FoundationFeatures, or list, array, Series or DataFrame of n_rows rows
            As for `fit`.
        y : array-like of shape (n_rows,)
            Labels.
        classes : array-like of shape (n_classes,), optional
            All labels that will come; needed in the first call.
        features : array-like of shape (n_rows, n_foundation_features), optional
            Foundation features of plain rows.
        sample_weight : array-like of shape (n_rows,), optional
            Weights of the rows in the task loss.

        Returns
        -------
        self : AFTClassifier
            The fitted estimator.
        """
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' is not supported for partial_fit, which does not know "
                "how many rows of each class will come: give a dict of weights."
            )
        self._fit(X, y, features, sample_weight, incremental=True, classes=classes)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the most likely label of each row.

        Parameters
        ----------
        X : FoundationFeatures or rows as for `fit`
            Rows. Foundation features are neither needed nor computed.

        Returns
        -------
        labels : ndarray of shape (n_rows,)
            Labels.
        """
        return self._student.targets.decode(self.forward(X))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class.

        Parameters
        ----------
        X : FoundationFeatures or rows as for `fit`
            Rows.

        Returns
        -------
        probabilities : ndarray of shape (n_rows, n_classes)
            In the order of ``classes_``.
        """
        return self.forward(X).double().softmax(dim=1).numpy()

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithm of the probability of each class.

        Parameters
        ----------
        X : FoundationFeatures or rows as for `fit`
            Rows.

        Returns
        -------
        log_probabilities : ndarray of shape (n_rows, n_classes)
            In the order of ``classes_``; finite even where a probability is rounded to 0.
        """
        return self.forward(X).double().log_softmax(dim=1).numpy()

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the logits.

        Parameters
        ----------
        X : FoundationFeatures or rows as for `fit`
            Rows.

        Returns
        -------
        logits : ndarray of shape (n_rows, n_classes), or (n_rows,) for two classes
            For two classes the second's logit minus the first's.
        """
        logits = self.forward(X).double().numpy()
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    @property
    def classes_(self) -> np.ndarray:
        """Labels, sorted; shape (n_classes,)."""
        targets: Any = self._student.targets
        return targets.classes
