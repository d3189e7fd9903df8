"""Objects as JSON and arrays: fitted preprocessors and parameters. Nothing is ever executed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from math import isfinite
from typing import Any

import numpy as np
import scipy.sparse

from sk_aft._data._resize import ImageGeometry
from sk_aft.preprocessing import SubwordTokenizer
from sk_aft.serving._arrays import as_strings

# What a folder may hold besides numbers, strings and collections of them. Their attributes are
# restored, and none of them runs code of the folder.
OBJECTS = {
    "SubwordTokenizer": "sk_aft.preprocessing",
    "ImageResizer": "sk_aft.preprocessing",
    "ColumnPreprocessor": "sk_aft.preprocessing",
    "Pipeline": "sklearn.pipeline",
    "SimpleImputer": "sklearn.impute",
    "PCA": "sklearn.decomposition",
    "TruncatedSVD": "sklearn.decomposition",
    "CountVectorizer": "sklearn.feature_extraction.text",
    "HashingVectorizer": "sklearn.feature_extraction.text",
    "TfidfTransformer": "sklearn.feature_extraction.text",
    "TfidfVectorizer": "sklearn.feature_extraction.text",
    "VarianceThreshold": "sklearn.feature_selection",
    "Binarizer": "sklearn.preprocessing",
    "MaxAbsScaler": "sklearn.preprocessing",
    "MinMaxScaler": "sklearn.preprocessing",
    "Normalizer": "sklearn.preprocessing",
    "OneHotEncoder": "sklearn.preprocessing",
    "OrdinalEncoder": "sklearn.preprocessing",
    "PolynomialFeatures": "sklearn.preprocessing",
    "PowerTransformer": "sklearn.preprocessing",
    "QuantileTransformer": "sklearn.preprocessing",
    "RobustScaler": "sklearn.preprocessing",
    "StandardScaler": "sklearn.preprocessing",
}
# Packages whose classes may be values of parameters, such as criterion=nn.CrossEntropyLoss.
_PACKAGES_OF_CLASSES = ("sk_aft.modules", "sk_aft.optim", "torch.nn", "torch.optim")


class CannotSaveError(ValueError):
    """A value that a folder cannot hold."""


class Encoder:
    """Describes objects as JSON values; collects the arrays that they hold.

    Parameters
    ----------
    prefix : str
        Beginning of the names of the arrays.
    tokenizers : mapping of str to SubwordTokenizer, optional
        Fitted tokenizers whose documents have files of their own, by the names of the files.

    Attributes
    ----------
    arrays : dict of str to ndarray
        Arrays of the objects described so far.
    """

    def __init__(
        self, prefix: str, tokenizers: Mapping[str, SubwordTokenizer] | None = None
    ) -> None:
        self.prefix = prefix
        self._file_of = {id(tokenizer): name for name, tokenizer in (tokenizers or {}).items()}
        self.arrays: dict[str, np.ndarray] = {}

    def describe(self, value: Any) -> Any:
        """Return a value as JSON.

        Raises
        ------
        CannotSaveError
            If it is of a type that a folder cannot hold.
        """
        if type(value) is str:
            check_text(value)
        if value is None or type(value) in (bool, str):
            return value
        if type(value) is int or (type(value) is float and isfinite(value)):
            return value
        if type(value) is float:
            return {"$float": str(value)}
        if isinstance(value, np.generic):
            return {"$scalar": self.describe(value.item()), "dtype": value.dtype.str}
        if type(value) in (list, tuple):
            items = [self.describe(item) for item in value]
            return items if type(value) is list else {"$tuple": items}
        if type(value) is dict:
            return self._dict(value)
        if isinstance(value, ImageGeometry):
            return {"$geometry": [self.describe(item) for item in value]}
        if isinstance(value, np.ndarray):
            return self._array(value)
        if scipy.sparse.issparse(value):
            return self._sparse(value)
        if isinstance(value, np.dtype):
            return {"$dtype": value.str, "is_type": False}
        if isinstance(value, type):
            return self._class(value)
        return self._object(value)

    def _dict(self, value: dict) -> Any:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: self.describe(item) for key, item in value.items()}
        pairs = [[self.describe(key), self.describe(item)] for key, item in value.items()]
        return {"$dict": pairs}

    def _array(self, array: np.ndarray) -> Any:
        if array.dtype.kind in "biuf" and array.dtype.itemsize <= 8:
            name = f"{self.prefix}.{len(self.arrays)}"
            self.arrays[name] = np.ascontiguousarray(array)
            return {"$array": name, "shape": list(array.shape)}
        if array.dtype.kind not in "OU":
            raise CannotSaveError(f"an array of dtype {array.dtype}")
        kind = "object" if array.dtype == object else "str"
        items = [self.describe(item) for item in array.ravel().tolist()]
        return {"$objects": items, "shape": list(array.shape), "dtype": kind}

    def _sparse(self, matrix: Any) -> Any:
        if matrix.format != "csr":
            raise CannotSaveError(f"a sparse matrix of format {matrix.format}, not csr")
        parts = [self._array(part) for part in (matrix.data, matrix.indices, matrix.indptr)]
        return {"$sparse": parts, "shape": list(matrix.shape), "format": matrix.format}

    def _class(self, value: type) -> Any:
        if issubclass(value, np.generic):
            return {"$dtype": np.dtype(value).str, "is_type": True}
        if _is_of_library(value):
            return {"$class": class_path(value)}
        raise CannotSaveError(f"the class {value.__qualname__}")

    def _object(self, value: Any) -> Any:
        name: str = type(value).__name__
        if name not in OBJECTS or type(value) is not _class_of(name):
            raise CannotSaveError(f"an object of type {name}")
        state: dict[str, Any] = dict(value.__getstate__())
        state.pop("_sklearn_version", None)  # "versions" of the configuration has it
        has_file = id(value) in self._file_of
        if has_file and state["tokenizer"] != "byte-level":
            state["tokenizer"] = state["tokenizer_json_"]
        described = self.describe(state)
        if has_file:
            for key in ("tokenizer", "tokenizer_json_"):
                if state[key] == state["tokenizer_json_"]:
                    described[key] = {"$file": self._file_of[id(value)]}
        return {"$object": name, "state": described}


class Decoder:
    """Undoes `Encoder`.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        The arrays.
    read_text : callable
        Returns the text of a file of the folder from its name.
    allow_classes : bool, default=False
        Whether it may name classes of torch and of this package, as parameters do.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        read_text: Callable[[str], str],
        *,
        allow_classes: bool = False,
    ) -> None:
        self.arrays = arrays
        self.read_text = read_text
        self.allow_classes = allow_classes

    def restore(self, described: Any) -> Any:
        """Return the value that JSON describes; raises ValueError for anything unknown."""
        if isinstance(described, list):
            return [self.restore(item) for item in described]
        if not isinstance(described, dict):
            return described
        kind = next(iter(described), "")
        if not kind.startswith("$"):
            return {key: self.restore(value) for key, value in described.items()}
        if kind not in self._READERS:
            raise ValueError(f"it holds a value of unknown kind {kind!r}")
        return self._READERS[kind](self, **{key.lstrip("$"): v for key, v in described.items()})

    def _file(self, file: str) -> str:
        return self.read_text(file)

    def _float(self, float: str) -> Any:
        return {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}[float]

    def _scalar(self, scalar: Any, dtype: str) -> Any:
        if np.dtype(dtype).kind not in "biufU":  # a void of any size would be made
            raise ValueError(f"it holds a number of dtype {dtype!r}")
        return np.dtype(dtype).type(self.restore(scalar))

    def _tuple(self, tuple: list) -> Any:
        return (*map(self.restore, tuple),)

    def _dict(self, dict: list) -> Any:
        return {self.restore(key): self.restore(value) for key, value in dict}

    def _geometry(self, geometry: list) -> ImageGeometry:
        return ImageGeometry(*map(self.restore, geometry))

    def _array(self, array: str, shape: list[int]) -> np.ndarray:
        return np.array(self.arrays[array]).reshape(shape)

    def _objects(self, objects: list, shape: list[int], dtype: str) -> np.ndarray:
        items: np.ndarray = np.empty(len(objects), dtype=object)
        items[:] = [self.restore(item) for item in objects]
        return (items if dtype == "object" else as_strings(items.tolist())).reshape(shape)

    def _sparse(self, sparse: list, shape: list[int], format: str) -> Any:
        if format != "csr":  # another one may need much more memory than the file
            raise ValueError(f"it holds a sparse matrix of format {format!r}, not csr")
        parts = [self._array(**{k.lstrip("$"): v for k, v in part.items()}) for part in sparse]
        matrix = scipy.sparse.csr_matrix(tuple(parts), shape=tuple(shape))
        matrix.check_format(full_check=True)  # compiled code does not check indices
        return matrix

    def _dtype(self, dtype: str, is_type: bool) -> Any:
        return np.dtype(dtype).type if is_type else np.dtype(dtype)

    def _class(self, **described: str) -> Any:
        if not self.allow_classes:
            raise ValueError(f"it holds the class {described['class']!r} outside of its parameters")
        return library_class(described["class"])

    def _object(self, object: str, state: Any) -> Any:
        if object not in OBJECTS:
            raise ValueError(f"it holds an object of unknown type {object!r}")
        cls = _class_of(object)
        attributes = self.restore(state)
        _check_attributes(cls, attributes)
        restored = cls.__new__(cls)
        vars(restored).update(attributes)
        if hasattr(cls, "_parameter_constraints"):
            restored._validate_params()
        if isinstance(restored, SubwordTokenizer):
            _ = restored._encoder  # a tokenizer that cannot be opened is an error now
        return restored

    _READERS: dict[str, Callable[..., Any]] = {
        "$file": _file,
        "$float": _float,
        "$scalar": _scalar,
        "$tuple": _tuple,
        "$dict": _dict,
        "$geometry": _geometry,
        "$array": _array,
        "$objects": _objects,
        "$sparse": _sparse,
        "$dtype": _dtype,
        "$class": _class,
        "$object": _object,
    }


def check_text(text: str) -> None:
    """Raise CannotSaveError for halves of surrogate pairs, which no file can hold as text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CannotSaveError(f"{text!r}, which is not valid Unicode") from error


def class_path(value: Any) -> str:
    """Return the path of a class or function, ``module:name``."""
    return f"{value.__module__}:{value.__qualname__}"


def library_class(path: str) -> Any:
    """Return a class of torch or of this package from its path; raises ValueError for others."""
    module, _, name = path.partition(":")
    if not (_is_inside(module, _PACKAGES_OF_CLASSES) and name.isidentifier()):
        raise ValueError(f"it names the class {path!r}, which is not loaded")
    try:
        value = getattr(import_module(module), name, None)
    except ImportError:
        value = None
    if not (isinstance(value, type) and _is_of_library(value)):
        raise ValueError(f"it names the class {path!r}, which does not exist")
    return value


def trusted(path: str, trust: Collection[Any], what: str) -> Any:
    """Return a class or function of the user; it is imported only if ``trust`` names it.

    Parameters
    ----------
    path : str
        ``module:name``.
    trust : collection of str, type or callable
        Paths, or the classes and functions themselves.
    what : str
        What it is, for the error.

    Raises
    ------
    ValueError
        If it is not trusted or does not exist.
    TypeError
        If ``trust`` is something else.
    """
    trust = checked_trust(trust)
    for known in trust:
        if hasattr(known, "__qualname__") and class_path(known) == path:
            return known
    if path not in [name for name in trust if isinstance(name, str)]:
        raise ValueError(
            f"{what} {path!r} is code of the author of this folder and is not loaded. If you trust "
            f"it, pass trust=[{path!r}]; it has to be importable here."
        )
    module, _, name = path.partition(":")
    try:
        value: Any = import_module(module)
        for part in name.split("."):
            value = getattr(value, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{what} {path!r} cannot be imported ({error}): make its module importable, or pass "
            "the class itself in trust=[...]."
        ) from error
    return value


def checked_trust(trust: Any) -> tuple[Any, ...]:
    """Return ``trust`` as a tuple of paths, classes and functions; raises TypeError for others."""
    if isinstance(trust, str) or callable(trust):
        return (trust,)
    is_collection = isinstance(trust, Collection) and not isinstance(trust, (bytes, Mapping))
    if not is_collection or not all(isinstance(one, str) or callable(one) for one in trust):
        raise TypeError(
            f"trust={trust!r}: expected a class or function, its path 'module:Class', or a list of "
            "these."
        )
    return tuple(trust)


def _check_attributes(cls: type, attributes: Any) -> None:
    """Raise ValueError for attributes that a fitted object of this class does not have."""
    name = cls.__name__
    for key in attributes:
        shadowed = getattr(cls, key, None)
        if key.startswith("__") or callable(shadowed) or isinstance(shadowed, property):
            raise ValueError(f"it holds a {name} whose method {key!r} is replaced")
    if attributes.get("memory") is not None:
        raise ValueError("it holds a pipeline with a cache of files")
    if attributes.get("input", "content") != "content":
        raise ValueError(f"it holds a {name} that reads files")
    if callable(attributes.get("analyzer")):
        raise ValueError(f"it holds a {name} with an analyzer of its own")
    columns = attributes.get("vocabulary_")
    # Compiled code counts in arrays of this size without looking.
    if columns is not None and sorted(columns.values()) != [*range(len(columns))]:
        raise ValueError(f"it holds a {name} whose vocabulary does not number its words from 0")


def _class_of(name: str) -> Any:
    return getattr(import_module(OBJECTS[name]), name)


def _is_of_library(value: type) -> bool:
    return _is_inside(value.__module__, _PACKAGES_OF_CLASSES)


def _is_inside(module: str, packages: Collection[str]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)
