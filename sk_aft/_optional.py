"""Imports of optional dependencies with an error that names the pip command."""

from __future__ import annotations

import importlib
from types import ModuleType


def import_optional(name: str, *, extra: str, purpose: str) -> ModuleType:
    """Import a module that only some users need.

    Parameters
    ----------
    name : str
        Module to import, for example "sentence_transformers".
    extra : str
        Extra of sk-aft that installs it.
    purpose : str
        What it is needed for; completes the sentence "... is needed for".

    Returns
    -------
    module : module
        The imported module.

    Raises
    ------
    ImportError
        If it is not installed; the message holds the pip command.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{name} is needed for {purpose} but could not be imported ({error}). "
            f"Install it with: pip install 'sk-aft[{extra}]'"
        ) from error
