"""FoundationFeatureExtractor: the transformer that adds foundation features to raw rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.base import TransformerMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import check_is_fitted, validate_data

from sk_aft._data._rows import Rows
from sk_aft._data._streams import is_stream
from sk_aft._extraction._batch_function import BatchFunction
from sk_aft._extraction._device_workers import end_workers
from sk_aft._extraction._door import (
    Door,
    Known,
    Seen,
    check_complete,
    columns_of_models,
    files_with_texts,
)
from sk_aft._extraction._feature_blocks import FeatureBlocks
from sk_aft._extraction._fitted_readers import fitted_readers
from sk_aft._extraction._frozen_models import FrozenModels
from sk_aft._extraction._reader import Reader, agreed_kinds, model_fingerprint
from sk_aft._extraction._source import FeatureSource
from sk_aft._extraction._stream import compute_stream
from sk_aft._features import FoundationFeatures
from sk_aft._predictors._soft_targets import (
    Lesson,
    Teacher,
    fitted_teachers,
    is_predictor,
    teachers_among,
)
from sk_aft._predictors._teacher_predictions import TeacherPredictions
from sk_aft._runtime._device import check_device, device_names
from sk_aft._runtime._half_precision import HALF
from sk_aft.backbones import resolve_backbone
from sk_aft.backbones._layers import check_layers
from sk_aft.store import FeatureStore, model_digest, row_digests


class FoundationFeatureExtractor(TransformerMixin, FrozenModels):
    """Add the features of frozen foundation models to the raw rows.

    ``fit_transform`` looks up each row in a store on disk by its content, runs the models on
    the missing rows (samples), and returns `FoundationFeatures`. ``transform`` returns the same
    type, but computes the features only when they are used. scikit-learn's own estimators use
    them, so this followed by ``LogisticRegression`` is a linear probe. `AFTClassifier` and
    `AFTRegressor` do not use them to predict.

    ``set_output(transform="pandas")`` or ``"polars"``, on the extractor or its pipeline, returns a
    plain frame of the features instead, without the raw rows, for other estimators. The
    global ``sklearn.set_config(transform_output=...)`` has no effect.

    Parameters
    ----------
    model : str, Backbone, torch.nn.Module, callable, estimator, or list or mapping of these
        Computes the features; see the notes for what can be a model.

        - A list: the features of several models are concatenated.
        - A mapping: the column of a DataFrame, or the tuple of columns, that each model reads.
    cache : "auto", path-like, FeatureStore or None, default="auto"
        Where features are kept.

        - "auto": in the directory named by the environment variable ``SK_AFT_CACHE``, or in
          the user's cache directory.
        - None: in memory only.
        - A FeatureStore, such as one with ``read_only=True``, in which nothing is computed.
    batch_size : int or "auto", default="auto"
        Number of rows per batch of a model; it does not change the features. "auto" is each
        model's own batch size, larger on a CUDA GPU, and halved when memory runs out.
    device : str, torch.device or list of these, default="auto"
        Where the models run. "auto" uses a GPU if there is one. Of a list, such as
        ["cuda:0", "cuda:1"], each device gets a process that computes missing features; worker
        processes of a search take one device each, in turn. See Notes.
    verbose : int, default=0
        1 shows a progress bar while a model runs, with rows per second and the time left.
    on_error : {"raise", "mask"}, default="raise"
        What happens if a model cannot read a row: a broken image, a missing text or number.

        - "raise": an error names the row. Features of other rows stay in the store.
        - "mask": its features are NaN, it is left out of the transfer term, and a warning counts
          such rows; see `FoundationFeatures.missing_mask`. The student still has to read it.
    inputs : str, list of str or None, default=None
        If ``model`` is a mapping: the column, or the columns as a DataFrame, that the student
        gets. Other columns are not needed at prediction. None means all columns.
    layers : {"last", "auto"} or list of int, default="last"
        Which layers of the models give features; see Notes.

        - "last": the model's own output, with its own pooling.
        - "auto": a middle layer and the last.
        - A list: layers by number; -1 is the last.
    precision : {"float32", "bfloat16", "float16"}, default="float32"
        Numbers that models of PyTorch compute with; see Notes. Features are float32 arrays.

        - "float32": features agree on all devices and are exact.
        - "bfloat16" or "float16": faster on a GPU; features are rounded.

    Attributes
    ----------
    backbones_ : list of Backbone
        The models, in the order of their features.
    feature_slices_ : dict of str to slice
        Which features come from which model. If models of several columns have the same name,
        the column's name is prepended. A layer before the last is named "minilm_layer4".
    column_slices_ : dict of str to slice
        Which features come from which column of a DataFrame; empty unless ``model`` is a mapping.
    n_features_out_ : int
        Number of features.
    n_features_in_ : int
        Number of columns of the rows seen during fit; only for 2-D numbers, or if ``model`` is a
        mapping.
    feature_names_in_ : ndarray of str
        Their names, if the rows were a DataFrame with string names.

    See Also
    --------
    AFTClassifier : Learns from the features and predicts without them.

    Notes
    -----
    A model is one of

    - a name: "minilm" (texts), "effnet-lite0", "effnet-lite1", "effnet-lite2" (images);
    - "st:NAME" (sentence-transformers: texts) or "hf:NAME" (transformers: texts, images, or both
      as CLIP), where NAME is a name on the Hugging Face hub or a directory; or a directory of
      either, without a prefix;
    - "timm:NAME" (images), "open_clip:NAME/PRETRAINED" (images or texts), or "onnx:PATH" (a file);
    - a SentenceTransformer, a model of transformers that was loaded from a directory or hub name
      with its tokenizer or image processor, ``transformers.pipeline("feature-extraction", ...)``,
      or a classifier of torchvision or timm, which reads images as its weights do;
    - a backbone of `sk_aft.backbones`, or another torch module;
    - a fitted scikit-learn transformer, or a function from a batch of rows to an (n, d) array;
    - `TeacherPredictions` of a classifier or regressor, or a fitted one: it has no features, and
      what it predicts are `FoundationFeatures.soft_targets`.

    Text models of "hf:NAME" read two texts as a pair if ``model`` is a mapping with a tuple of two
    columns: ``{("premise", "hypothesis"): "hf:NAME"}``.

    Text models read the first tokens of a text, 256 by default. When a model runs, a warning counts
    longer texts; texts whose features come from the store are not counted.

    Images may have any of these encodings, and a different one after ``fit``:

    - Integers range from 0 to 255, or to 65535 if some exceed 255; bools are black and white.
    - Floats range from 0 to 1 if all floats in the images seen during ``fit`` do. Otherwise they
      range from 0 to 255 if they are whole numbers or reach 128. If ``fit`` saw no floats, the
      images of the call decide. Functions and torch modules also accept other floats, such as
      standardised ones, but then all images have to be like them.
    - Arrays are (n, height, width), or have channels last or first: the axis of length 1, 3 or 4.
      Other numbers of bands are recognised if images are square or if there are few bands. A
      fourth channel is transparency; transparent images are put on white.
    - Images are rotated as their Exif data specify. Only the first frame of an animation is read.

    Most models of these families have layers; functions, modules, transformers of scikit-learn and
    ONNX files have one output, which "last" and "auto" use. Of a text model, 0 are the embeddings,
    and k is the output of its k-th layer: the mean over the tokens, not normalised. Of
    EfficientNet, 0 is the stem, k the k-th block, and the last layer follows the blocks; features
    are means over the map. The documentation has a page for each family.

    The middle layer comes after two thirds of a transformer's layers, layer 4 of MiniLM's 6, and
    after three quarters of EfficientNet's, layer 13 of EfficientNet-Lite0's 17. "last" computes
    and stores it, too, in the same pass: it is for `FoundationFeatures.teacher_features`, and for a
    later "auto". ``layers=[-1]`` stores the last layer alone, which takes about half of the disk
    space.

    Several devices are used if rows are missing for at least one group of 8 batches on each. The
    processes are joblib's: they load the models once, and end with ``precompute``, or after 5
    minutes without work. The order of the rows and the errors are those of one device. If a process
    dies, a RuntimeError says so; the features of other batches are in the store, and the next call
    resumes. Ray shows each process a GPU of its own, so use "auto" there.

    In half precision, PyTorch's autocast runs the models; their weights stay float32. The first 32
    rows of each model also run in float32, once in a process. An error says so if the cosine of a
    row's features with those in float32 is below 0.99, or if features are not finite. EfficientNet
    needs "float16"; models that were trained in bfloat16 may overflow in it. The store keeps
    rounded features apart from exact ones. ONNX files, functions and transformers of scikit-learn
    compute as they always do. On a CPU, float32 is usually faster, because ONNX Runtime runs it.

    Models are frozen, so clones of an extractor share them. A function, or a module with a
    preprocessing function, is not recognised in another run unless a fingerprint is declared
    (see `sk_aft.backbones.CallableBackbone`); its features are kept only for this process.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sk_aft import FoundationFeatureExtractor
    >>> def count_letters(texts):
    ...     return np.array([[text.count(letter) for letter in "abc"] for text in texts])
    >>> probe = make_pipeline(FoundationFeatureExtractor(count_letters), LogisticRegression())
    >>> probe.fit(["aa", "ab", "cb", "cc"], [0, 0, 1, 1]).predict(["a", "c"])
    array([0, 1])
    """

    _parameter_constraints: dict = {
        "model": "no_validation",  # resolve_backbone explains what it can be
        "cache": [StrOptions({"auto"}), str, os.PathLike, FeatureStore, None],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "device": [str, torch.device, list, tuple],
        "verbose": ["verbose"],
        "on_error": [StrOptions({"raise", "mask"})],
        "inputs": "no_validation",  # names of columns may be of any type
        "layers": "no_validation",  # check_layers says what it can be
        "precision": [StrOptions({"float32", *HALF})],
    }

    # Set by fit.
    _rows_kind: str
    _readers: list[Reader]
    _model_names: list[str]
    _teacher: FeatureBlocks | None
    _teachers: list[Teacher]
    _soft_targets: Any  # a SoftTargetSource, or None
    _kinds: dict[Any, str]
    _float_ranges: dict[Any, Any]  # of the columns of images, None for the rows as they are
    # scikit-learn looks here first, so that its global setting does not part rows and features.
    _sklearn_output_config: dict = {"transform": "default"}

    def __init__(
        self,
        model: Any,
        *,
        cache: Any = "auto",
        batch_size: int | str = "auto",
        device: Any = "auto",
        verbose: int = 0,
        on_error: str = "raise",
        inputs: Any = None,
        layers: Any = "last",
        precision: str = "float32",
    ) -> None:
        self.model = model
        self.cache = cache
        self.batch_size = batch_size
        self.device = device
        self.verbose = verbose
        self.on_error = on_error
        self.inputs = inputs
        self.layers = layers
        self.precision = precision

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None, *, groups: Any = None) -> FoundationFeatureExtractor:
        """Check the rows and the models, and fit predictors that teach.

        Parameters
        ----------
        X : list, array, Series or DataFrame of n_rows rows
            Strings, 2-D numbers, images (arrays, PIL images, paths, bytes of image files; see
            Notes of the class), or a DataFrame column of any of these. Categories are read as
            texts. If ``model`` is a mapping: a DataFrame with the columns that the models read.
        y : array-like of shape (n_rows,) or (n_rows, n_targets), optional
            Targets, which only `TeacherPredictions` learn.
        groups : array-like of shape (n_rows,), optional
            Groups of rows that the folds of `TeacherPredictions` do not split.

        Returns
        -------
        self : FoundationFeatureExtractor
            The fitted transformer.

        Raises
        ------
        ValueError
            If rows are of mixed types, missing, or of a kind that a model does not read, or
            if a model's name is unknown.
        ImportError
            If a model needs a package that is not installed; the message names the pip command.
        """
        with self._restored_on_error():
            self._fit(X, y, groups)
        return self

    @contextmanager
    def _restored_on_error(self) -> Iterator[None]:
        """Leave a fitted extractor as it was if it cannot be fitted again."""
        before = dict(vars(self))
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _fit(self, X: Any, y: Any = None, groups: Any = None) -> Seen:
        """Do the work of ``fit``; return the rows, so that they are recognised only once."""
        check_device(self.device)
        if self.cache is None and isinstance(self.device, (list, tuple)) and len(self.device) > 1:
            raise ValueError(
                f"device={self.device!r} names {len(self.device)} devices, whose processes share "
                "their work in a store, but cache=None has none: use cache='auto', a directory or "
                "one device."
            )
        if isinstance(self.batch_size, bool):  # an int to the check of parameters
            raise ValueError(f"batch_size has to be 'auto' or a number, got {self.batch_size}.")
        if not self._models():
            kind = type(self.model).__name__
            raise ValueError(f"model is an empty {kind}: give at least one foundation model.")
        check_layers(self.layers)
        readers, self._teachers = self._resolved()
        self._check_models(readers)
        self._readers = readers
        self._kinds = agreed_kinds(readers)
        seen = self._check_rows(X, reset=True)
        for teacher in self._teachers:
            rows = teacher.part.recognised(seen.read)
            check_complete(rows, self.on_error, teacher.part.column)
        lessons = [Lesson.of(teacher, seen.read, y, groups) for teacher in self._teachers]
        names = getattr(self, "feature_names_in_", None)
        fitted = fitted_readers(self._source(), seen.read, self.layers, names)
        self._readers = fitted.readers
        self._model_names = fitted.names
        self._float_ranges = fitted.float_ranges
        self._teacher = fitted.teacher
        self.feature_slices_ = fitted.shown.feature_slices
        self.column_slices_ = fitted.shown.column_slices
        self.backbones_ = [reader.backbone for reader in fitted.readers]
        self.n_features_out_ = fitted.shown.width
        self._soft_targets = fitted_teachers(lessons, verbose=self.verbose)
        return seen

    def _resolved(self) -> tuple[list[Reader], list[Teacher]]:
        """Return the models with features and those that predict; nothing is loaded."""
        readers = [
            Reader(resolve_backbone(model), column, precision=self.precision)
            for column, model in self._models()
            if not is_predictor(model)
        ]
        return readers, teachers_among(self._models())

    def _check_models(self, readers: Sequence[Reader]) -> None:
        """Raise ValueError if such models cannot be used; called before any row is read."""

    @_fit_context(prefer_skip_nested_validation=False)
    def fit_transform(self, X: Any, y: Any = None, *, groups: Any = None) -> FoundationFeatures:
        """Return the rows with their features, which are computed now.

        Parameters
        ----------
        X : list, array, Series or DataFrame of n_rows rows
            As for `fit`.
        y : array-like of shape (n_rows,) or (n_rows, n_targets), optional
            As for `fit`.
        groups : array-like of shape (n_rows,), optional
            As for `fit`.

        Returns
        -------
        rows : FoundationFeatures of shape (n_rows, n_features_out)
            The raw rows as ``.inputs``, the features as ``.features``. A DataFrame of features
            after ``set_output(transform="pandas")`` or ``"polars"``.
        """
        with self._restored_on_error():
            rows = self._beside_features(self._fit(X, y, groups))
            rows._computed()
            if self._teachers:
                _ = rows.soft_targets  # of all rows at once, and kept by Pipeline(memory=...)
        return self._output(rows)

    def transform(self, X: Any) -> FoundationFeatures:
        """Return the rows with features that are computed when they are first used.

        Parameters
        ----------
        X : list, array, Series or DataFrame of n_rows rows
            As for `fit`.

        Returns
        -------
        rows : FoundationFeatures of shape (n_rows, n_features_out)
            The raw rows as ``.inputs``, the features as ``.features``.
        """
        check_is_fitted(self)
        return self._output(self._beside_features(self._check_rows(X, reset=False)))

    @_fit_context(prefer_skip_nested_validation=False)
    def precompute(
        self, X: Any, y: Any = None, *, groups: Any = None
    ) -> FoundationFeatureExtractor:
        """Fill the store ahead of a search, then free the models' memory.

        It is resumable: called again with the same rows, it runs the models only on those that are
        missing. Several processes may share the work by calling it with the same rows.

        Parameters
        ----------
        X : list, array, Series or DataFrame of n_rows rows, or a stream
            As for `fit`. A stream is read once, a few thousand rows at a time, and the rows are
            not kept. Iterators may yield batches (lists, arrays, frames) or single rows.
        y : array-like of shape (n_rows,) or (n_rows, n_targets), optional
            As for `fit`.
        groups : array-like of shape (n_rows,), optional
            As for `fit`.

        Returns
        -------
        self : FoundationFeatureExtractor
            The fitted transformer, with the models unloaded.
        """
        if self.cache is None:
            raise ValueError("cache=None keeps no features, so there is nothing to precompute.")
        with self._restored_on_error():
            try:
                if is_stream(X):
                    self._precompute_stream(X)
                else:
                    seen = self._fit(X, y, groups)
                    self._source().compute(seen.read)
            finally:
                self._unload()
        return self

    def _unload(self) -> None:
        """Free the memory of the models, in worker processes, too."""
        for backbone in getattr(self, "backbones_", ()):
            backbone.unload()
        if isinstance(self.device, (list, tuple)):
            end_workers()

    def _precompute_stream(self, X: Any) -> None:
        """Fit to the first batch of a stream, and compute the features of each."""
        if any(is_predictor(model) for _, model in self._models()):
            raise ValueError(
                "precompute of a stream runs foundation models only: TeacherPredictions learn from "
                "all rows at once, so give them to fit."
            )

        def read(batch: Any, is_first: bool) -> Rows:
            return (self._fit(batch) if is_first else self._check_rows(batch, reset=False)).read

        def compute(rows: Rows, advance: Callable[[int], Any]) -> None:
            self._source().compute(rows, advance)

        readers = self._resolved()[0]
        compute_stream(
            files_with_texts(X, agreed_kinds(readers)),
            columns_of_models(self.model),
            read,
            compute,
            n_models=len(readers),
            verbose=self.verbose,
        )

    def store_keys(self, X: Any) -> dict[str, list[bytes]]:
        """Return the keys of rows in the store, for `FeatureStore.explain_key` and similar methods.

        Parameters
        ----------
        X : list, array, Series or DataFrame of n_rows rows
            As for `fit`.

        Returns
        -------
        keys : dict of str to list of bytes
            For each model, one key per row of all its layers. By the model's name, such as
            "minilm", also if ``feature_slices_`` has only "minilm_layer4". Empty without a cache.
        """
        check_is_fitted(self)
        keys = {}
        source = self._source()
        read = self._check_rows(X, reset=False).read
        for name, reader in zip(self._model_names, self._readers, strict=True):
            store = source.store(reader.backbone)
            if store is not None:
                rows = reader.rows(read)
                model = model_digest(model_fingerprint(reader.model, rows), store.dtype)
                keys[name] = [model + digest for digest in row_digests(rows)]
        return keys

    def as_batch_function(self, column: Any = None, output: str = "features") -> BatchFunction:
        """Return a function that adds features to batches, for Ray Data, Dask, Spark and others.

        It can be pickled. Each process of a cluster loads the models when its first batch comes,
        and keeps them. Threads of one process take turns, so give each worker process one thread.

        Parameters
        ----------
        column : str, optional
            The column that the models read. None is for a mapping as ``model``, which names them.
        output : str, default="features"
            The new column.

        Returns
        -------
        function : callable
            Takes a dict of columns, a DataFrame of pandas or polars, or a Table or RecordBatch of
            pyarrow, and returns the same with the new column. In a dict it is a float32 array
            (n_rows, n_features). In other types it is a column of lists of one length, as which
            Parquet keeps it. With ``on_error="mask"``, rows that cannot be read are null, in a
            dict NaN, even if it is a whole batch.

        Raises
        ------
        ValueError
            If the extractor has to be fitted first, see Notes, or has no features.

        Notes
        -----
        A fitted extractor reads every batch as it read the rows of `fit`. An extractor that is not
        fitted needs models that know what they read, such as "minilm". Functions, torch modules and
        fine-tuned models need `fit` on a few rows, and so do images that are floats or have more
        than 8 bits, which every batch would otherwise scale on its own.

        Features go to the store of the machine that computes them, as ``cache`` says: "auto" is a
        directory on each node, a path on a shared file system is shared, and None stores nothing.

        An empty batch returns at once and loads no model. Dask takes the types of the columns from
        it: ``frame.map_partitions(function, meta=function(frame._meta))``.

        Examples
        --------
        >>> import numpy as np
        >>> from sk_aft import FoundationFeatureExtractor
        >>> def count_letters(texts):
        ...     return np.array([[text.count(letter) for letter in "abc"] for text in texts])
        >>> extractor = FoundationFeatureExtractor(count_letters, cache=None).fit(["a text"])
        >>> function = extractor.as_batch_function("text", output="letters")
        >>> batch = function({"id": [1, 2], "text": ["aa", "cab"]})
        >>> sorted(batch)
        ['id', 'letters', 'text']
        >>> print(batch["letters"])
        [[2. 0. 0.]
         [1. 1. 1.]]
        """
        return BatchFunction(self, column, output)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the columns: the model's name and a number.

        Parameters
        ----------
        input_features : ignored
            Present for the convention of scikit-learn.

        Returns
        -------
        names : ndarray of str
            For example "minilm_0" to "minilm_383".
        """
        check_is_fitted(self)
        names = [
            f"{name}_{column}"
            for name, columns in self.feature_slices_.items()
            for column in range(columns.stop - columns.start)
        ]
        return np.array(names, dtype=object)

    def set_output(self, *, transform: str | None = None) -> FoundationFeatureExtractor:
        """Set what ``transform`` and ``fit_transform`` return.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"}, optional
            "default" is `FoundationFeatures`, which the students need; the others are frames of
            the features alone. None changes nothing.

        Returns
        -------
        self : FoundationFeatureExtractor
            The transformer itself.
        """
        if transform is not None:
            self._sklearn_output_config = {"transform": transform}
        return self

    def _source(self, readers: list[Reader] | None = None) -> FeatureSource:
        return FeatureSource(
            self._readers if readers is None else readers,
            self.cache,
            self.batch_size,
            device_names(self.device),
            self.verbose,
            self.on_error,
        )

    def _beside_features(self, seen: Seen) -> FoundationFeatures:
        """Return rows with features that are not computed yet."""
        return FoundationFeatures(
            seen.inputs,
            seen.rows,
            self._source(),
            self.feature_slices_,
            read=seen.read,
            column_slices=self.column_slices_,
            soft_target_source=self._soft_targets,
            teacher=self._teacher,
        )

    def _check_rows(self, X: Any, *, reset: bool) -> Seen:
        """Recognise and check the rows; all rows pass through here once."""
        door = Door(
            self.model,
            self.inputs,
            self.on_error,
            self._kinds,
            has_readers=bool(self._readers),
            reads_frames=bool(self._teachers),
        )
        known = None if reset else Known(self._rows_kind, self._float_ranges)
        seen = door.seen(X, known, partial(validate_data, self, reset=reset, skip_check_array=True))
        if reset:
            self._rows_kind = seen.rows.kind
        return seen

    def _output(self, rows: FoundationFeatures) -> Any:
        # scikit-learn wraps the output in a frame, but only if it is an array.
        frames = _get_output_config("transform", self)["dense"] != "default"
        return np.asarray(rows) if frames else rows

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = True
        tags.input_tags.three_d_array = True
        tags.target_tags.required = any(
            isinstance(model, TeacherPredictions) and not isinstance(model.cv, str)
            for _, model in self._models()
        )
        tags.transformer_tags.preserves_dtype = []
        tags.requires_fit = True
        return tags
