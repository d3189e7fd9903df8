"""The methods of students that save, load and export them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from sk_aft._deployment._quantize import DTYPES
from sk_aft._deployment._reader import read_student
from sk_aft._deployment._writer import replaced_folder, student_files
from sk_aft._student._attributes import FittedAttributes
from sk_aft.serving._folder import StudentFolder


class DeploymentMethods(FittedAttributes, BaseEstimator):
    """Saving, loading and exporting of `AFTClassifier` and `AFTRegressor`."""

    def save_pretrained(self, directory: Any, *, dtype: str = "float32") -> None:
        check_is_fitted(self)
        if dtype not in DTYPES:
            raise ValueError(f"dtype={dtype!r}, expected one of {DTYPES}.")
        files = student_files(
            self._student, self.get_params(deep=False), owner=type(self).__name__, dtype=dtype
        )
        with replaced_folder(Path(directory)) as temporary:
            for name, content in files.items():
                (temporary / name).write_bytes(content)

    @classmethod
    def from_pretrained(cls, directory: Any, *, trust: Collection[Any] = ()) -> Any:
        parameters, student = read_student(StudentFolder.open(directory), cls, trust)
        estimator = cls(**parameters)
        estimator._fitted = student
        return estimator
