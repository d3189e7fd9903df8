"""What identifies a model: digests of its files, its classes' code, its weights and its state."""

from __future__ import annotations

import functools
import io
import pickle
import sys
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash

_MODULE_ATTRIBUTES = frozenset(vars(torch.nn.Module()))


def directory_digest(directory: str | Path) -> str:
    """Digest the names and contents of all files below a directory, or of one file."""
    root = Path(directory)
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
    digest = xxhash.xxh3_128()
    for path in files:
        if path.suffix == ".pyc":
            continue
        stat = path.stat()
        name = path.name if root.is_file() else path.relative_to(root).as_posix()
        digest.update(name.encode())
        digest.update(_file_digest(str(path), stat.st_size, stat.st_mtime_ns))
    return digest.hexdigest()


@functools.lru_cache(maxsize=4096)
def _file_digest(path: str, size: int, modified: int) -> bytes:
    # Size and modification time are arguments so that a changed file misses the cache.
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.digest()


def describe_classes(classes: Iterable[type]) -> list[str]:
    """Return a line for each class, which changes with its code or its package's version.

    The methods of a class and its bases are digested. Functions that they call are not: they
    are covered by the version of their package only.
    """
    return sorted({_describe_class(base) for cls in classes for base in cls.__mro__})


def is_library(module: str) -> bool:
    """Return whether a module belongs to Python or a versioned package, not to the user."""
    package = module.partition(".")[0]
    return package in sys.stdlib_module_names - {"__main__"} or _version(package) is not None


def _describe_class(cls: type) -> str:
    digest = xxhash.xxh3_128()
    for name, value in sorted(vars(cls).items()):
        for code in _code_objects(value):
            digest.update(f"{name} {_code_digest(code)}".encode())
    version = _version(cls.__module__.partition(".")[0])
    return f"{cls.__module__}.{cls.__qualname__} {version} {digest.hexdigest()}"


def _version(package: str) -> str | None:
    return getattr(sys.modules.get(package), "__version__", None)


def _code_objects(value: Any) -> Iterator[types.CodeType]:
    if isinstance(value, property):
        members = [value.fget, value.fset]
    else:
        members = [getattr(value, "__func__", value)]
    for member in members:
        code = getattr(member, "__code__", None)
        if isinstance(code, types.CodeType):
            yield code


@functools.lru_cache(maxsize=1 << 16)  # a model of transformers has 14,000
def _code_digest(code: types.CodeType) -> str:
    return xxhash.xxh3_128_hexdigest(_describe_code(code).encode("utf-8", "surrogatepass"))


def _describe_code(code: types.CodeType) -> str:
    constants = [
        _describe_code(value)
        if isinstance(value, types.CodeType)
        # The iteration order of a set differs between processes.
        else repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)
        for value in code.co_consts
    ]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"


def tensors_digest(module: torch.nn.Module) -> str:
    """Digest a module's parameters and buffers."""
    return _digest([*module.named_parameters(), *module.named_buffers()])


def module_digest(module: torch.nn.Module) -> str:
    """Digest a module's parameters, its buffers and the other attributes of its layers."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return _digest([*tensors, *_layer_attributes(module)])


def _digest(named_values: Iterable[tuple[str, Any]]) -> str:
    digest = xxhash.xxh3_128()
    for name, value in named_values:
        digest.update(name.encode())
        digest.update(_value_bytes(value) or b"")
    return digest.hexdigest()


def is_digestible(module: torch.nn.Module) -> bool:
    """Return whether `module_digest` covers all layer attributes; it cannot cover own functions."""
    return all(_value_bytes(value) is not None for _, value in _layer_attributes(module))


def _layer_attributes(module: torch.nn.Module) -> list[tuple[str, Any]]:
    return [
        (f"{prefix}.{name}", value)
        for prefix, layer in module.named_modules()
        for name, value in vars(layer).items()
        if name not in _MODULE_ATTRIBUTES
    ]


def _value_bytes(value: Any) -> bytes | None:
    """Return bytes that are equal for equal values, None if equality cannot be determined."""
    if isinstance(value, torch.Tensor):
        # Bytes, since NumPy has no bfloat16.
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return f"{value.dtype} {tuple(value.shape)}".encode() + _array_digest(flat)
    if isinstance(value, np.ndarray) and value.dtype != object:
        header = f"{value.dtype.str} {value.shape}".encode()
        return header + _array_digest(np.ascontiguousarray(value))
    if isinstance(value, dict):
        return _sequence_bytes("dict", [part for pair in value.items() for part in pair])
    if isinstance(value, (list, tuple)):
        return _sequence_bytes(type(value).__name__, value)
    if isinstance(value, functools.partial):
        return _sequence_bytes("partial", [value.func, value.args, value.keywords])
    if isinstance(value, (types.FunctionType, types.BuiltinFunctionType)):
        is_torch = str(value.__module__).partition(".")[0] in ("torch", "builtins", "math")
        return f"{value.__module__}.{value.__qualname__}".encode() if is_torch else None
    if isinstance(value, type):
        return "\n".join(describe_classes([value])).encode()
    description = repr(value)
    return None if " at 0x" in description else description.encode()


def _sequence_bytes(kind: str, values: Iterable[Any]) -> bytes | None:
    contents = [_value_bytes(value) for value in values]
    known = [content for content in contents if content is not None]
    if len(known) < len(contents):
        return None
    return kind.encode() + b"".join(len(part).to_bytes(8, "little") + part for part in known)


def _array_digest(array: np.ndarray) -> bytes:
    return xxhash.xxh3_128_digest(array.data)


def canonical_copy(transformer: Any) -> tuple[Any, set[type], bool]:
    """Return a copy of a transformer whose digest is the same in every process.

    Parameters
    ----------
    transformer : estimator
        Fitted.

    Returns
    -------
    copy : object
        Without attributes that do not affect results; None if it cannot be pickled.
    classes : set of type
        The classes of all objects in it.
    has_own_code : bool
        Whether the content does not identify it: it holds a function or an interactive class
        of the user's own, or cannot be pickled (a class defined in a function, a lock).
    """
    buffer = io.BytesIO()
    pickler = _CanonicalPickler(buffer)
    try:
        pickler.dump(transformer)
        # Unpickled, since pickling changes the memory layout of arrays, which joblib digests.
        copy = pickle.loads(buffer.getvalue())
    except (AttributeError, TypeError, pickle.PicklingError):
        return None, set(), True
    return copy, pickler.classes, pickler.has_own_code


class _CanonicalPickler(pickle.Pickler):
    """Leave out what does not affect a transformer's results; note the user's own code."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.has_own_code = False
        self.classes: set[type] = set()

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, types.FunctionType):
            if is_library(obj.__module__):
                return NotImplemented
            self.has_own_code = True
            return str, (f"{obj.__module__}.{obj.__qualname__}",)
        if isinstance(obj, type):
            self.classes.add(obj)
            self.has_own_code |= obj.__module__ == "__main__"
        if "_stop_words_id" in getattr(obj, "__dict__", {}):
            # A vectorizer stores the id() of its stop words, which differs between processes.
            build, arguments, state, *rest = obj.__reduce_ex__(4)
            state = {key: value for key, value in state.items() if key != "_stop_words_id"}
            return (build, arguments, state, *rest)
        return NotImplemented
