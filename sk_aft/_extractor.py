"""FoundationFeatureExtractor: the transformer that adds foundation features to raw rows."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from tqdm.auto import tqdm

from sk_aft._data._containers import is_frame, require_columns, select_columns
from sk_aft._data._joined_warnings import joined_warnings
from sk_aft._data._lazy_columns import opened
from sk_aft._data._rows import Rows, as_rows, check_finite, named
from sk_aft._data._streams import batches_of, is_stream
from sk_aft._embedding import (
    OR_MASK,
    FeatureSource,
    Reader,
    model_fingerprint,
    seconds_between_updates,
)
from sk_aft._feature_blocks import Blocks, names_of
from sk_aft._features import FeatureBlocks, FoundationFeatures
from sk_aft._predictors._soft_targets import (
    Lesson,
    Teacher,
    fitted_teachers,
    is_predictor,
    teachers_among,
)
from sk_aft._predictors._teacher_predictions import TeacherPredictions
from sk_aft._runtime._device import resolve_device
from sk_aft.backbones import Backbone, resolve_backbone
from sk_aft.backbones._base import FeatureShapeError
from sk_aft.backbones._layers import check_layers, layers_to_store
from sk_aft.store import FeatureStore, model_digest, row_digests
from sk_aft.store._process import inherit, process_state

# The first row tells the width of a model's features. If rows may be broken, more are tried.
_ROWS_TRIED_FOR_WIDTH = 100


class _Seen(NamedTuple):
    """Rows that the extractor has checked.

    Parameters
    ----------
    inputs : array-like, list, Series or DataFrame of n_rows rows
        What the student gets, as it was given.
    rows : Rows
        The same, recognised.
    read : Rows
        What the models read.
    """

    inputs: Any
    rows: Rows
    read: Rows


class FoundationFeatureExtractor(TransformerMixin, BaseEstimator):
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
    batch_size : int or "auto", default="auto"
        Number of rows per batch of a model; it does not change the features. "auto" is each
        model's own batch size, larger on a CUDA GPU, and halved when memory runs out.
    device : str or torch.device, default="auto"
        Where the models run. "auto" uses a GPU if there is one.
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
        "device": [str, torch.device],
        "verbose": ["verbose"],
        "on_error": [StrOptions({"raise", "mask"})],
        "inputs": "no_validation",  # names of columns may be of any type
        "layers": "no_validation",  # check_layers says what it can be
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
        device: str | torch.device = "auto",
        verbose: int = 0,
        on_error: str = "raise",
        inputs: Any = None,
        layers: Any = "last",
    ) -> None:
        self.model = model
        self.cache = cache
        self.batch_size = batch_size
        self.device = device
        self.verbose = verbose
        self.on_error = on_error
        self.inputs = inputs
        self.layers = layers

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

    def _fit(self, X: Any, y: Any = None, groups: Any = None) -> _Seen:
        """Do the work of ``fit``; return the rows, so that they are recognised only once."""
        resolve_device(self.device)
        if isinstance(self.batch_size, bool):  # an int to the check of parameters
            raise ValueError(f"batch_size has to be 'auto' or a number, got {self.batch_size}.")
        if not self._models():
            kind = type(self.model).__name__
            raise ValueError(f"model is an empty {kind}: give at least one foundation model.")
        check_layers(self.layers)
        readers, self._teachers = self._resolved()
        self._check_models(readers)
        self._readers = readers
        self._kinds = _agreed_kinds(readers)
        seen = self._check_rows(X, reset=True)
        for teacher in self._teachers:
            self._check_complete(teacher.part.recognised(seen.read), teacher.part.column)
        lessons = [Lesson.of(teacher, seen.read, y, groups) for teacher in self._teachers]
        readers = [self._of_rows(reader, seen.read) for reader in readers]
        self._model_names = names_of(readers)
        float_ranges = {}
        shown, stored = Blocks(), Blocks()
        for number, (reader, name) in enumerate(zip(readers, self._model_names, strict=True)):
            backbone, column = reader.backbone, reader.column
            rows = reader.rows(seen.read)
            self._check_complete(rows, column)
            if rows.kind == "image":
                float_ranges[column] = rows.float_range
            reader = reader._replace(kind=rows.kind)
            backbone.check_rows(rows, self._columns_read(column))
            widths = self._widths(reader, name, seen.read)
            stored.add(widths, column)
            if reader.layers and isinstance(self.layers, str) and self.layers == "last":
                last = widths.popitem()
                reader = reader._replace(shown=slice(sum(widths.values()), None))
                widths = dict([last])
            shown.add(widths, column)
            readers[number] = reader
        self._readers = readers
        self._float_ranges = float_ranges
        self._teacher = None
        if stored != shown:
            whole = [reader._replace(shown=slice(None)) for reader in readers]
            self._teacher = FeatureBlocks(whole, stored.feature_slices, stored.column_slices)
        self.feature_slices_ = shown.feature_slices
        self.column_slices_ = shown.column_slices
        self.backbones_ = [reader.backbone for reader in readers]
        self.n_features_out_ = shown.width
        self._soft_targets = fitted_teachers(lessons, verbose=self.verbose)
        return seen

    def _resolved(self) -> tuple[list[Reader], list[Teacher]]:
        """Return the models with features and those that predict; nothing is loaded."""
        readers = [
            Reader(resolve_backbone(model), column)
            for column, model in self._models()
            if not is_predictor(model)
        ]
        return readers, teachers_among(self._models())

    def _of_rows(self, reader: Reader, rows: Rows) -> Reader:
        """Return the part of a model that reads such rows, and its layers."""
        backbone = reader.backbone.of_kind(reader.rows(rows).kind)
        return reader._replace(backbone=backbone, layers=layers_to_store(backbone, self.layers))

    def _widths(self, reader: Reader, name: str, rows: Rows) -> dict[str, int]:
        """Return the width of each layer that is stored, by its name."""
        backbone, widths = reader.backbone, {name: reader.backbone.n_features_out}
        if reader.layers:
            last = widths.pop(name)
            for layer in reader.layers:
                if layer == backbone.n_layers:
                    widths[name] = last
                else:
                    widths[f"{name}_layer{layer}"] = backbone.layer_width(layer)
        known = {key: width for key, width in widths.items() if width is not None}
        if len(known) == len(widths):
            return known
        rest = self._width(reader, rows) - sum(known.values())
        return {key: rest if width is None else width for key, width in widths.items()}

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
        rows : FoundationFeatures of shape (n_rows, n_features_out_)
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
        rows : FoundationFeatures of shape (n_rows, n_features_out_)
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
                for backbone in getattr(self, "backbones_", ()):
                    backbone.unload()
        return self

    def _precompute_stream(self, X: Any) -> None:
        """Fit to the first batch of a stream, and compute the features of each."""
        if any(is_predictor(model) for _, model in self._models()):
            raise ValueError(
                "precompute of a stream runs foundation models only: TeacherPredictions learn from "
                "all rows at once, so give them to fit."
            )
        n_rows = 0
        with joined_warnings(), self._progress_of_stream(X) as progress:
            for batch in batches_of(X, self._columns_of_models()):
                with _counted_from(n_rows):
                    seen = self._check_rows(batch, reset=False) if n_rows else self._fit(batch)
                self._source()._replace(verbose=0).compute(seen.read.counted_from(n_rows))
                n_rows += len(seen.read)
                progress.update(len(seen.read))
        if not n_rows:
            raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")

    def _progress_of_stream(self, X: Any) -> tqdm:
        n_rows = len(X) if hasattr(X, "__len__") and not isinstance(X, str) else None
        interval = seconds_between_updates()
        return tqdm(total=n_rows, unit="row", disable=not self.verbose, mininterval=interval)

    def _columns_of_models(self) -> list[Any] | None:
        """Return the columns that the models read; None if they read whole rows."""
        if not isinstance(self.model, Mapping):
            return None
        read = [name for column in self.model for name in self._columns_read(column)]
        return list(dict.fromkeys(read))

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

    def set_params(self, **params: Any) -> FoundationFeatureExtractor:
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

    def _models(self) -> list[tuple[Any, Any]]:
        """Return pairs of a column (None for whole rows) and a model."""
        by_column = self.model if isinstance(self.model, Mapping) else {None: self.model}
        return [
            (column, model)
            for column, models in by_column.items()
            for model in (models if isinstance(models, (list, tuple)) else [models])
        ]

    def _columns_read(self, column: Any) -> Any:
        """Return the names of the columns that a model reads, or None if they have no names."""
        if column is None:
            return getattr(self, "feature_names_in_", None)
        return column if isinstance(column, tuple) else [column]

    def _source(self, readers: list[Reader] | None = None) -> FeatureSource:
        return FeatureSource(
            self._readers if readers is None else readers,
            self.cache,
            self.batch_size,
            str(self.device),
            self.verbose,
            self.on_error,
        )

    def _width(self, reader: Reader, rows: Rows) -> int:
        """Run a model to find the width of what is stored of it."""
        source = self._source([reader])._replace(verbose=0, on_error="raise")
        n_tried = 1 if self.on_error == "raise" else min(len(rows), _ROWS_TRIED_FOR_WIDTH)
        for row in range(n_tried):
            try:
                # Through the store, because the row is needed there anyway.
                return source.compute(rows[row : row + 1])[0].matrix.width
            except FeatureShapeError:
                raise
            except ValueError:
                continue
        # This raises; the other rows tell whether the first is to blame.
        return source.compute(rows[:_ROWS_TRIED_FOR_WIDTH])[0].matrix.width

    def _beside_features(self, seen: _Seen) -> FoundationFeatures:
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

    def _check_rows(self, X: Any, *, reset: bool) -> _Seen:
        """Recognise and check the rows; all rows pass through here once."""
        names = self._columns_of_models()
        X = opened(X, names and self._columns_to_open(names, X, reset=reset))
        if names is not None:
            # At prediction, columns that only the models read may be missing.
            if reset or not is_frame(X):
                require_columns(X, names)
            seen = self._columns_of_frame(
                X, dict.fromkeys(self.model) if reset else self._float_ranges
            )
            if reset:
                validate_data(self, X, reset=True, skip_check_array=True)
            return seen
        if self.inputs is not None:
            raise ValueError(
                f"inputs={self.inputs!r} names columns of a DataFrame, so model has to be a "
                "mapping such as {'text': 'minilm'}, which says which column each model reads."
            )
        # Texts are paths if all of them end in ".png"; a few rows cannot tell, so fit decides.
        reads_frame = bool(self._teachers) and is_frame(X)
        rows = as_rows(X, kind=None if reset else self._rows_kind, frames=reads_frame, missing=True)
        X = rows.values if rows.is_lazy else X
        self._check_complete(rows)
        if reset and rows.holds_strings:
            rows = rows.read_as(self._kinds.get(None, rows.kind))
        if rows.kind == "image":
            rows = rows.in_float_range(None if reset else self._float_ranges.get(None))
        if rows.kind in ("numeric", "category", "frame"):
            self._check_table(X if is_frame(X) else rows.values, rows, reset=reset)
        if reset:
            self._rows_kind = rows.kind
        inputs = X if hasattr(X, "__getitem__") else np.asarray(X)
        # An estimator reads the DataFrame itself.
        return _Seen(inputs, rows, as_rows(X, kind="frame") if reads_frame else rows)

    def _columns_to_open(self, names: list[Any], X: Any, *, reset: bool) -> list[Any]:
        """Return the columns of a stream that the models and the student read."""
        of_student = self.inputs if isinstance(self.inputs, list) else [self.inputs]
        known = getattr(X, "column_names", None)
        if known is not None and not reset:
            names = [name for name in names if name in known]
        return list(dict.fromkeys([*names, *(name for name in of_student or () if name)]))

    def _check_table(self, table: Any, rows: Rows, *, reset: bool) -> None:
        validate_data(self, table, reset=reset, skip_check_array=True)
        if rows.kind != "numeric":
            return
        check_array(rows.values, ensure_all_finite=False)
        # Estimators say themselves whether they read NaN.
        if self.on_error == "raise" and self._readers:
            columns = list(table.columns) if is_frame(table) else None
            advice = f"fill it before the extractor.{OR_MASK}"
            check_finite(rows.values, columns=columns, advice=advice)

    def _check_complete(self, rows: Rows, column: Any = None) -> None:
        """Raise if a row is missing, before a model runs."""
        if self.on_error == "raise":
            with named(column) if column is not None else nullcontext():
                rows.check_complete(OR_MASK)

    def _columns_of_frame(self, X: Any, float_ranges: dict[Any, Any]) -> _Seen:
        """Return the columns of a DataFrame that the student and the models get."""
        # What models take a column for, the student does, too.
        rows = as_rows(X, kind="frame")
        read = replace(rows, float_range=float_ranges, column_kinds=self._kinds)
        is_one = self.inputs is not None and not isinstance(self.inputs, list)
        names = list(X.columns) if self.inputs is None else [self.inputs] if is_one else self.inputs
        require_columns(X, names)
        if is_one:
            return _Seen(X[self.inputs], read.column(self.inputs, missing=True), read)
        frame = X if self.inputs is None else select_columns(X, self.inputs)
        if len(names) == 1:
            rows = read.column(names[0], missing=True)
            return _Seen(rows.values if rows.is_lazy else frame, rows, read)
        if read.is_lazy:
            raise ValueError(
                f"A student cannot read the columns {names} of a stream together: name the one "
                "that it reads, as in inputs="
                f"{names[0]!r}, give a DataFrame, or call partial_fit with one DataFrame after "
                "another."
            )
        rows = as_rows(frame, frames=True)
        if rows.kind != "frame":
            return _Seen(frame, rows, read)
        # They share the columns that are recognised already.
        return _Seen(frame, replace(read, values=frame), read)

    def _output(self, rows: FoundationFeatures) -> Any:
        # scikit-learn wraps the output in a frame, but only if it is an array.
        frames = _get_output_config("transform", self)["dense"] != "default"
        return np.asarray(rows) if frames else rows

    def __sklearn_clone__(self) -> FoundationFeatureExtractor:
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


@contextmanager
def _counted_from(first: int) -> Iterator[None]:
    """Say in errors about a batch of a stream where its rows stand."""
    try:
        yield
    except ValueError as error:
        if not first:
            raise
        raise ValueError(
            f"{error} Rows are counted from the beginning of a batch here, which is row {first} of "
            "the stream."
        ) from error


def _agreed_kinds(readers: list[Reader]) -> dict[Any, str]:
    """Return, by column, the kind that its models read, if they agree on one."""
    kinds: dict[Any, set] = {}
    for reader in readers:
        kinds.setdefault(reader.column, set()).add(reader.backbone.kind)
    return {
        column: kind
        for column, (kind, *others) in kinds.items()
        if kind in ("text", "image") and not others
    }


def _is_known_by_content(model: Any) -> bool:
    if isinstance(model, (str, Backbone)):
        return True
    try:
        return resolve_backbone(model).is_persistent
    except (TypeError, ValueError):  # not a model; fit will say so
        return False
