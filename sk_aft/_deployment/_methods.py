"""The methods of students that save, load and export them."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from sk_aft._data._labels import known_targets
from sk_aft._data._rows import Rows
from sk_aft._deployment import _folder
from sk_aft._deployment._example_rows import example_rows
from sk_aft._deployment._number_format import DTYPES
from sk_aft._deployment._push import push_folder
from sk_aft._deployment._reader import read_student
from sk_aft._features import FoundationFeatures
from sk_aft._student._attributes import FittedAttributes
from sk_aft._student._schema import check_rows
from sk_aft._student._training_data import check_labeled
from sk_aft.serving._folder import CONFIG, StudentFolder
from sk_aft.serving._hub import local_folder

_QUANTIZED = ("float16", "int8")


class DeploymentMethods(FittedAttributes, BaseEstimator):
    """Saving, loading and exporting of `AFTClassifier` and `AFTRegressor`."""

    missing_label: Any

    def save_pretrained(
        self,
        directory: Any,
        *,
        X_test: Any = None,
        y_test: Any = None,
        onnx: bool | str = False,
        dtype: str = "float32",
    ) -> None:
        """Save the fitted student as a folder, from which it predicts without PyTorch.

        The folder holds ``config.json``, ``model.safetensors``, ``tokenizer.json`` (texts), a model
        card ``README.md``, and ``onnx/`` on request. It holds no code and no training row.
        `sk_aft.serving.load` predicts from it; `from_pretrained` makes an estimator of it.

        Parameters
        ----------
        directory : path-like
            Created if necessary. Files of a student that was saved there before are replaced or
            removed; other files of these names are an error.
        X_test : rows as for `fit`, optional
            Rows to test. The model card says the score of what is saved, and the time of a row.
        y_test : array-like of shape (n_rows,) or (n_rows, n_targets), optional
            Their targets; rows marked by ``missing_label`` are ignored.
        onnx : bool, "float32", "float16" or "int8", default=False
            Whether to export the network for ONNX Runtime, too, which `sk_aft.serving` needs for
            all networks but static texts. True is the number format of ``dtype``; others are
            explained in `export_onnx`.
        dtype : {"float32", "float16", "int8"}, default="float32"
            Number format of large matrices in ``model.safetensors``. "float16" halves its size and
            "int8" quarters it; look at the score of ``X_test``.

        Raises
        ------
        ValueError
            If the student cannot be described without code: for example, if its network is an
            instance of your own class, or its preprocessor is your own. Nothing is written then.
        FileExistsError
            If the directory holds files of these names that are not a student's.
        sklearn.exceptions.NotFittedError
            If it is not fitted.
        """
        path = _path(directory)
        self._save(path, X_test, y_test, onnx, dtype, name=path.resolve().name)

    @classmethod
    def from_pretrained(
        cls,
        dir_or_repo: Any,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        trust: Collection[Any] = (),
    ) -> Any:
        """Load a student that `save_pretrained` or `push_to_hub` saved.

        It predicts. `partial_fit`, and `fit` with ``warm_start=True``, train it further; after a
        transfer, set ``beta=0`` first or pass foundation features. Losses of the training, the
        optimizer and the transfer objective are not part of the folder.

        Parameters
        ----------
        dir_or_repo : path-like or str
            A folder, or the name of a repository on the Hugging Face hub, "owner/name".
        revision : str, optional
            Branch, tag or commit of the repository; default: its main branch.
        token : str or bool, optional
            Token of the hub for private repositories; default: the one stored on this machine.
        local_files_only : bool, default=False
            Whether to use only what was downloaded before.
        trust : collection of str or type, default=()
            Networks of your own that may be imported, as "module:Class" or the class itself.
            Everything else in a folder is data.

        Returns
        -------
        student : AFTClassifier or AFTRegressor
            The fitted estimator.

        Raises
        ------
        ValueError
            If the folder holds another kind of student, is damaged, was written by a newer version,
            or names a network that is not trusted.
        TypeError
            If ``trust`` is something else.
        """
        options: Any = {"revision": revision, "token": token, "local_files_only": local_files_only}
        folder = StudentFolder.open(local_folder(dir_or_repo, **options))
        parameters, student = read_student(folder, cls, trust)
        try:
            estimator = cls(**parameters)
        except TypeError as error:
            raise ValueError(
                f"{folder.path} holds parameters that {cls.__name__} does not know ({error}): was "
                "it saved by a subclass, or by a newer version of sk-aft?"
            ) from error
        estimator._fitted = student
        return estimator

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        commit_message: str | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        X_test: Any = None,
        y_test: Any = None,
        onnx: bool | str = False,
        dtype: str = "float32",
    ) -> str:
        """Save the student and upload its folder to the Hugging Face hub.

        Parameters
        ----------
        repo_id : str
            "owner/name"; created if necessary.
        private : bool, optional
            Whether a new repository is private; default: that of the owner, usually public.
        commit_message : str, optional
            Message of the commit.
        token : str or bool, optional
            Token of the hub that may write; default: the one stored on this machine.
        revision : str, optional
            Branch; default: "main".
        X_test, y_test, onnx, dtype
            As for `save_pretrained`.

        Returns
        -------
        url : str
            The address of the commit.

        Raises
        ------
        ImportError
            If huggingface_hub is not installed.
        PermissionError
            If the token may not write to the repository.
        """
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "student"
            self._save(folder, X_test, y_test, onnx, dtype, name=repo_id)
            return push_folder(
                folder,
                repo_id,
                private=private,
                commit_message=commit_message,
                token=token,
                revision=revision,
            )

    def export_onnx(
        self, directory: Any, X: Any, y: Any = None, *, quantize: str | None = None
    ) -> dict[str, Any]:
        """Export the student as one graph for ONNX Runtime, and check that it agrees.

        The graph reads token ids and lengths (texts), decoded pictures of any size (uint8), numbers
        (tables), or one input a column (DataFrames). Scaling, resizing and normalisation are inside
        of it. It returns "probabilities" or "predictions", and "features".

        Parameters
        ----------
        directory : path-like
            Folder of this student, which is saved there first if it is not: writes
            ``onnx/model.onnx`` and ``onnx/parity.json`` in it.
        X : rows as for `fit`
            32 of them are predicted by PyTorch and by ONNX Runtime, and compared. They are not
            stored.
        y : array-like of shape (n_rows,) or (n_rows, n_targets), optional
            Targets of the rows. The scores of both are in the report then.
        quantize : {"float16", "int8"} or None, default=None
            - "float16": half the size and the same speed, since weights are expanded on loading.
            - "int8": linear layers are computed in int8 and embeddings stored in int8; a quarter of
              the size, and faster for transformers. Convolutions are stored as float16.

        Returns
        -------
        report : dict
            What ``onnx/parity.json`` holds: differences, shares of equal predictions and scores.

        Raises
        ------
        ImportError
            If onnx or onnxruntime is not installed.
        ValueError
            If the network cannot be exported, if without ``quantize`` a probability differs by more
            than 1e-4 (1e-3 where the graph resizes images of 8 bits, whose pixels are rounded), or
            if the folder holds another student. Nothing is written then.
        """
        if quantize not in (None, *_QUANTIZED):
            raise ValueError(f"quantize={quantize!r}, expected None or one of {_QUANTIZED}.")
        rows, labels = self._test_rows(X, y)
        path = _path(directory)
        if (path / CONFIG).exists():
            return _folder.add_graph(path, self._student, rows, labels=labels, quantize=quantize)
        report = _folder.write_folder(
            path,
            self._student,
            self.get_params(deep=False),
            dtype="float32",
            name=path.resolve().name,
            graph_rows=rows,
            graph_labels=labels,
            quantize=quantize,
            load_student=self._loaded_from,
        )
        assert report is not None
        return report

    def _save(
        self, directory: Path, X_test: Any, y_test: Any, onnx: Any, dtype: str, *, name: str
    ) -> None:
        check_is_fitted(self)
        if dtype not in DTYPES:
            raise ValueError(f"dtype={dtype!r}, expected one of {DTYPES}.")
        if not isinstance(onnx, bool) and onnx not in DTYPES:
            raise ValueError(f"onnx={onnx!r}, expected True, False or one of {DTYPES}.")
        if X_test is None and y_test is not None:
            raise ValueError("y_test was passed without X_test: pass both, or neither.")
        rows, labels = (None, None) if X_test is None else self._test_rows(X_test, y_test)
        number_format = onnx if isinstance(onnx, str) else dtype
        graph_rows = None
        if onnx:
            graph_rows = example_rows(self._student) if rows is None else rows
        given = X_test.inputs if isinstance(X_test, FoundationFeatures) else X_test
        _folder.write_folder(
            directory,
            self._student,
            self.get_params(deep=False),
            dtype=dtype,
            name=name,
            graph_rows=graph_rows,
            graph_labels=labels,
            quantize=None if number_format == "float32" else number_format,
            load_student=self._loaded_from,
            X_test=None if given is None else self._labeled_only(given, y_test),
            y_test=labels,
        )

    def _test_rows(self, X: Any, y: Any) -> tuple[Rows, Any]:
        """Return checked rows with a target, and their targets."""
        check_is_fitted(self)
        X = self._labeled_only(X, y)
        student = self._student
        rows, _ = check_rows(
            X, student.schema, owner=type(self).__name__, allow_nan=student.inputs.allows_nan
        )
        return rows, self._known(y)

    def _labeled_only(self, X: Any, y: Any) -> Any:
        if y is None:
            return X
        check_consistent_length(X, y)
        labeled = check_labeled(y, self.missing_label)
        return X if labeled.all() else _safe_indexing(X, np.flatnonzero(labeled))

    def _known(self, y: Any) -> Any:
        return None if y is None else known_targets(y, check_labeled(y, self.missing_label))

    def _loaded_from(self, directory: Path) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of parameters that only training needs
            return type(self).from_pretrained(directory, trust=[self.module])


def _path(directory: Any) -> Path:
    if not os.fspath(directory):
        raise ValueError("The directory is an empty string: give its name.")
    return Path(directory).expanduser()
