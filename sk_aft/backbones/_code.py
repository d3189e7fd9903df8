"""What a class does, as far as its own code says."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

import xxhash


def describe_classes(classes: Iterable[type]) -> list[str]:
    """Return a line for each class that changes when its code or its package's version does.

    The functions of a class and its bases are digested; functions elsewhere that they call
    count by the version of their package.
    """
    return sorted({_describe(base) for kind in classes for base in kind.__mro__})


def is_library(module: str) -> bool:
    """Whether code is of Python itself or of a package with a version, not the user's own."""
    package = module.partition(".")[0]
    return package in sys.stdlib_module_names - {"__main__"} or _version(package) is not None


def _describe(kind: type) -> str:
    digest = xxhash.xxh3_128()
    for name, value in sorted(vars(kind).items()):
        for code in _codes(value):
            digest.update(f"{name} {_content(code)}".encode())
    version = _version(kind.__module__.partition(".")[0])
    return f"{kind.__module__}.{kind.__qualname__} {version} {digest.hexdigest()}"


def _version(package: str) -> str | None:
    return getattr(sys.modules.get(package), "__version__", None)


def _codes(value: Any) -> Iterator[types.CodeType]:
    if isinstance(value, property):
        members = [value.fget, value.fset]
    else:
        members = [getattr(value, "__func__", value)]
    for member in members:
        code = getattr(member, "__code__", None)
        if isinstance(code, types.CodeType):
            yield code


def _content(code: types.CodeType) -> str:
    constants = [
        _content(value)
        if isinstance(value, types.CodeType)
        # The order of a set differs from run to run.
        else repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)
        for value in code.co_consts
    ]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"
