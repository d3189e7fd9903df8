"""AFTClassifier: a small network for classification that learns from foundation features."""

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
    """A small network that learns from labels and foundation features, and predicts alone.

    The loss is the task loss plus ``beta`` times a transfer loss, which transfers knowledge from
    the foundation model to the network (Adaptive Feature Transfer). Prediction takes raw rows and
    runs only the small network. It is a `skorch.NeuralNetClassifier` and a scikit-learn classifier.

    Parameters
    ----------
    module : str, type, callable or torch.nn.Module, default="auto"
        The network. Its ``forward`` returns logits, or these and its features.

        - "auto": `MLP` for 2-D numbers, `StaticText` for texts, `EfficientNetLite` for grey and RGB
          images (`ResNet` for other bands, and for floats of other scales than 0 to 1 or 0 to 255),
          `MixedNet` for columns of several kinds, with a `ResNet` for each column of images.
        - "minilm", "st:NAME", "hf:NAME" or a directory, as in `FoundationFeatureExtractor`: the
          first ``module__n_layers`` layers of this text encoder, fine-tuned (`TransformerText`).
        - "effnet-lite0", "effnet-lite1" or "effnet-lite2": the first ``module__n_blocks`` blocks of
          this image encoder, fine-tuned (`EfficientNetLite`).
        - "timm:NAME": this model of timm with its pretrained weights (`PretrainedImage`).
        - A class or function: called with ``module__x``, and with those of ``n_inputs``,
          ``n_channels``, ``n_tokens``, ``parts`` and ``n_outputs`` that it accepts.
        - An instance: copied; training starts from its weights. A model of timm or torchvision gets
          a new head and its own image size and scale, as "timm:NAME" does.
    transfer : str, torch.nn.Module, list of (method, strength) or None, default="auto"
        What is learned from the foundation features or soft targets. "pooled-kd" and "probe-kd"
        fit linear models first; a step takes a few per cent longer.

        - "auto": "pooled-kd", which reads a middle layer of the models, too. "probe-kd" if `fit`
          gets ``soft_targets``. "aft" if the labelled rows have fewer than two distinct targets.
          The first `partial_fit` chooses "probe-kd" if X holds soft targets, else "aft".
        - A name: "pooled-kd", "probe-kd", "aft" (the paper's method), "kd", "rkd", "ft", "kkd",
          "b-tuning", ...; see `sk_aft.transfer.make_transfer`.
        - A module: maps student features (B, p) and foundation features (B, d) to a scalar.
        - A list: several of these with their strengths, ``[("aft", 10), ("probe-kd", 1)]``.
        - None: standard training.
    beta : "auto" or float >= 0, default="auto"
        Strength of the transfer: the loss is the task loss plus ``beta`` times the transfer loss.
        "auto" is the method's default: 1 for "pooled-kd", "probe-kd" and lists, 10 for "aft", as
        published. 0 is exactly standard training. With neither foundation features nor soft
        targets, "auto" warns and uses 0.
    preprocessor : "auto", estimator or None, default="auto"
        Converts rows to numbers; fitted to the training rows, and part of the fitted student.

        - "auto": `StandardScaler` for 2-D numbers, `ImageResizer` for images, `SubwordTokenizer`
          for texts and `ColumnPreprocessor` for columns of several kinds. If ``module`` names a
          text encoder, its tokenizer.
        - An estimator: cloned and fitted. It gets a DataFrame if the rows are one.
        - None: the rows are already numbers, and are not scaled.
    lr : "auto" or float, default="auto"
        Initial learning rate. "auto" is the network's own: 1e-3 for `MLP`, or 3e-3 if predictions
        teach it rows without a label, 3e-3 for `EfficientNetLite`, 1e-4 for `TransformerText`. The
        head of networks that are fine-tuned has ``module__head_lr_factor`` times this rate.
        ``optimizer__lr`` has precedence.
    transfer_lr : float, default=1e-2
        Learning rate of the transfer method's own parameters, as published.
    optimizer : type, default=sk_aft.optim.RowwiseAdamW
        Class of the optimizer. The default is AdamW, faster for large embeddings.
    criterion : type or torch.nn.Module, default=torch.nn.CrossEntropyLoss
        Task loss, from logits (B, n_classes) and class numbers (B,).
    max_epochs : int or "auto", default="auto"
        Passes over all training rows; time is proportional to it. "auto" counts steps: as many as
        50 passes over the labelled rows have, or 200 if that is more (on tables 1,000).
        Networks that are fine-tuned make fewer passes, `EfficientNetLite` 10 and at least 300
        steps. At most 500 passes are made.
    batch_size : int, default=128
        Rows per batch. The transfer compares the rows of a batch with each other. Rows are shuffled
        in each epoch, and a last batch of less than an eighth of ``batch_size`` is left out if at
        least four others are full.
    lr_schedule : {"cosine", "constant"}, default="cosine"
        Whether the learning rates fall to zero along a cosine. Networks that are fine-tuned start
        with a warm-up, in which they rise. An `LRScheduler` among ``callbacks`` replaces both.
    early_stopping : bool, default=False
        Whether to hold out ``validation_fraction`` of the rows, stop when their score no longer
        improves, and restore the best weights.
    validation_fraction : float, default=0.1
        Share of the labelled rows held out by ``early_stopping``; at least one. Stratified by
        class if there are enough rows; otherwise every class keeps a row to train on.
    n_iter_no_change : int, default=10
        Epochs without improvement after which ``early_stopping`` stops.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the task loss.
    warm_start : bool, default=False
        Whether another `fit` resumes the training. It keeps the network, the preprocessor, the
        transfer method and the held-out rows, so their parameters may not change.
    missing_label : int, float, str or None, default=None
        Marks unknown labels in y. Such rows contribute to the transfer loss, but not to the task
        loss. NaN also matches None and ``pandas.NA``; None means that all labels are known. For
        cross-validation use `sk_aft.model_selection.LabeledFold`: scorers count unlabelled rows as
        errors.
    unlabeled_fraction : float, default=0.5
        Share of unlabelled rows in each batch, if there are any. Rows of the smaller kind are
        repeated within an epoch, which makes it longer.
    mixup : float, default=0.0
        If above 0, rows are mixed in training with others of their batch, and their targets with
        them; shares are drawn from Beta(mixup, mixup). For images and numbers, with "pooled-kd",
        "probe-kd" or without a transfer.
    callbacks : list or None, default=None
        Additional skorch callbacks, or ("name", callback) pairs. They see rows and targets as
        they were passed to `fit`.
    random_state : int, RandomState or None, default=None
        Determines initial weights, batches and the validation split. Global random states do not
        change.
    device : str, torch.device or list of these, default="auto"
        Where to train and predict. "auto" uses a GPU if there is one. Processes, such as those of
        a search with n_jobs, take the devices of a list in turn: ["cuda:0", "cuda:1"]. Ray shows
        each process a GPU of its own, so use "auto" there.
    precision : {"float32", "bf16-mixed", "16-mixed"}, default="float32"
        Number format of the network in training. Weights and predictions stay float32.

        - "float32": exact, and fastest for small networks.
        - "bf16-mixed": half the memory; faster for large networks on hardware with bfloat16.
        - "16-mixed": the same for older GPUs; slower on CPUs.
    compile : bool, default=False
        Whether to train with `torch.compile`. Costs seconds to a minute at the first fit, and needs
        a C++ compiler on a CPU; pays off for larger networks on GPUs.
    verbose : int, default=0
        1 prints a line per epoch. With "pooled-kd", a line before them has the weight of each
        teacher and their score.
    **kwargs
        ``module__x``, ``optimizer__x``, ``criterion__x``, ``transfer__x``, ``compile__x`` and
        ``preprocessor__x`` are passed on as ``x``, and can be searched over.
        ``callbacks__name__x`` sets ``x`` of a callback; ``callbacks__name=None`` leaves it out.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted.
    module_ : torch.nn.Module
        The trained network.
    preprocessor_ : estimator or None
        The fitted preprocessor.
    transfer_method_ : str, torch.nn.Module, list of (method, strength) or None
        The transfer method used; None without transfer. Training that resumes keeps it.
    beta_ : float
        Strength of the transfer; 0 without transfer.
    transfer_ : torch.nn.Module
        The fitted transfer method; absent without transfer.
    teacher_weights_ : dict of str to float
        Weight of each teacher: of each layer of each foundation model, "soft targets", "student's
        rows" and "student's start". They need not sum to 1. Only with "pooled-kd".
    teacher_score_ : float
        How good the pooled teachers are out of fold, from 0 to 1: the share of the labels' entropy
        that they explain or, for numbers, R². NaN without folds. Only with "pooled-kd".
    feature_weights_ : ndarray of shape (n_foundation_features,)
        Weight of each foundation feature, between 0 and 1. Only for methods that have such
        weights, such as "aft".
    criterion_, optimizer_, callbacks_ : torch.nn.Module, torch.optim.Optimizer, list
        The loss, optimizer and callbacks of the training. The last two are not saved.
    device_ : torch.device
        Where the network is.
    history_ : skorch.history.History
        Measurements of every epoch: "train_loss", "train_task_loss", "train_transfer_loss",
        "feature_weight_NAME", "dur" and, with ``early_stopping``, "valid_loss" and "valid_score".
        ``history`` is the same.
    n_iter_ : int
        Number of epochs.
    loss_curve_ : list of float
        Mean loss of each epoch, including the transfer term.
    validation_scores_ : list of float or None
        Score on the held-out rows after each epoch; None without ``early_stopping``.
    n_features_in_ : int
        Number of columns; only for 2-D numbers and DataFrames of several kinds of columns.
    feature_names_in_ : ndarray of str
        Names of the columns, if X was a DataFrame with string names.

    Notes
    -----
    Rows are samples. For the kinds of rows see `fit`, and for images the Notes of
    `FoundationFeatureExtractor`. The constructor of a network may accept ``n_inputs`` (columns, or
    bands of images), ``n_channels`` (bands), ``n_tokens`` (size of the vocabulary) or ``parts``. To
    make an automatic network larger, set ``module__hidden_sizes`` (`MLP`), ``module__n_blocks``
    (`EfficientNetLite`) or ``module__width`` (`StaticText`).

    If ``forward`` returns no features, they
    are the input of the last ``torch.nn.Linear`` that runs. A tuple of features, one for each
    column, represents their outer product.

    A preprocessor may return sequences of tokens: an array of dtype object of 1-D arrays. The
    network is then called with ``tokens``, (B, longest) padded with zeros, and ``lengths``, (B,);
    rows of similar length share a batch. For columns of several kinds it is called with the parts
    returned by the preprocessor, by their names.

    `decision_function` returns logits, and `predict_log_proba` stays finite if a probability is
    rounded to 0. A network that ends in a softmax is rejected.

    `save_pretrained` makes a folder of a fitted student, from which `sk_aft.serving.load` predicts
    without PyTorch. `from_pretrained` loads it again, `push_to_hub` shares it, and `export_onnx`
    adds a graph for ONNX Runtime.

    See Also
    --------
    FoundationFeatureExtractor : Adds foundation features to raw rows.
    AFTRegressor : The same for numeric targets.

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
        lr: float | str = "auto",
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
        mixup: float = 0.0,
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
        self.mixup = mixup
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
        soft_targets: Any = None,
        sample_weight: Any = None,
        X_unlabeled: Any = None,
    ) -> AFTClassifier:
        """Train the network.

        Parameters
        ----------
        X : FoundationFeatures, or list, array, Series or DataFrame of n_rows rows
            Output of a `FoundationFeatureExtractor`, or plain rows: 2-D numbers, texts, images
            in any encoding, or a DataFrame. A column's kind depends only on that column: strings
            are texts, ``pandas.Categorical`` columns are categories.
        y : array-like of shape (n_rows,)
            Labels of any type.
        features : array-like of shape (n_rows, n_foundation_features) or path-like, optional
            Foundation features of plain rows, or a file that `sk_aft.store.read_features` reads,
            such as Parquet with a column "features". Rows of NaN, or null, have no features. A
            search cannot slice a path: give it ``features=read_features(path)``.
        soft_targets : array-like of shape (n_rows, n_classes), optional
            Class probabilities from any source, such as a language model, in the order of
            ``classes_``, or a DataFrame with columns named after the classes; NaN in rows without
            them. If X, or else y, has a pandas index, theirs has to be the same. They replace
            the soft targets that X holds. ``transfer="auto"`` learns from them alone.
        sample_weight : array-like of shape (n_rows,), optional
            Weights of the rows in the task loss; in the transfer loss all rows have equal weight.
        X_unlabeled : FoundationFeatures, optional
            Rows without labels, and without ``soft_targets``; they contribute to the transfer
            loss. A pipeline passes them on after
            ``sklearn.set_config(enable_metadata_routing=True)``, with ``set_fit_request`` of this
            estimator and ``Pipeline(..., transform_input=["X_unlabeled"])``.

        Returns
        -------
        self : AFTClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            If rows, labels, features, soft targets or weights cannot be used; raised before any
            training.
        sk_aft.exceptions.DivergenceError
            If the loss becomes infinite or NaN; it is also a ValueError.
        KeyboardInterrupt
            If it is interrupted. An estimator that was fitted before is unchanged; one that was
            not keeps the result of the completed epochs.
        """
        self._fit(X, y, features, sample_weight, X_unlabeled, soft_targets)
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
        """Train the network for one pass over some rows, from its current weights.

        The first call builds the network and fits the preprocessor; later ones keep these, so the
        first rows should know most of the vocabulary. The learning rate stays at ``lr``.

        Parameters
        ----------
        X : FoundationFeatures, or list, array, Series or DataFrame of n_rows rows
            As for `fit`.
        y : array-like of shape (n_rows,)
            Labels.
        classes : array-like of shape (n_classes,), optional
            All labels that may occur; required in the first call.
        features : array-like of shape (n_rows, n_foundation_features) or path-like, optional
            Foundation features of plain rows, or a file of them, as for `fit`.
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
                "how many rows each class will have: give a dict of weights."
            )
        self._fit(X, y, features, sample_weight, incremental=True, classes=classes)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the most likely label of each row.

        Parameters
        ----------
        X : FoundationFeatures or rows as for `fit`
            Rows. Foundation features are not needed and not computed.

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
            In the order of ``classes_``; finite even if a probability is rounded to 0.
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
            For two classes, the second class's logit minus the first's.
        """
        logits = self.forward(X).double().numpy()
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    @property
    def classes_(self) -> np.ndarray:
        """Labels, sorted; shape (n_classes,)."""
        targets: Any = self._student.targets
        return targets.classes
