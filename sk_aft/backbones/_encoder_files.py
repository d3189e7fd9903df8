"""Where the files of a text model's transformer are, and what its configuration says of layers."""

from __future__ import annotations

import json
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from sk_aft._optional import import_optional
from sk_aft.backbones._hub import load_from_hub


class EncoderFiles(NamedTuple):
    """Where the files of an encoder are.

    Parameters
    ----------
    name_or_path : str
        Name on the hub, or a directory.
    subfolder : str, default=""
        Folder of the encoder within it.
    """

    name_or_path: str
    subfolder: str = ""

    def load(self, kind: Any, **parameters: Any) -> Any:
        """Call ``kind.from_pretrained`` with these files; no code of the hub is run."""
        load = partial(kind.from_pretrained, self.name_or_path, subfolder=self.subfolder)
        return load_from_hub(self.name_or_path, partial(load, **parameters))

    def size(self) -> EncoderSize | None:
        """Return the number of layers and their width, None if there are no layers."""
        directory = Path(self.name_or_path, self.subfolder)
        if directory.is_dir():
            path = directory / "config.json"
            if not path.is_file():  # an adapter
                return None
            # Most configurations need no transformers, which takes a second to import.
            config = json.loads(path.read_text("utf-8"))
            if {"num_hidden_layers", "hidden_size"} <= config.keys():
                return EncoderSize(config["num_hidden_layers"], config["hidden_size"])
        return size_of(self.load(import_transformers().AutoConfig))


class EncoderSize(NamedTuple):
    """Number of an encoder's layers, and the width of their hidden states."""

    n_layers: int
    width: int


def size_of(config: Any) -> EncoderSize | None:
    """Return what a configuration of transformers says of the layers, None if nothing."""
    n_layers = getattr(config, "num_hidden_layers", None)
    width = getattr(config, "hidden_size", None)
    return EncoderSize(n_layers, width) if n_layers and width else None


def files_in_sentence_transformer(name_or_path: str) -> EncoderFiles:
    """Return the files of the transformer of a sentence-transformers model.

    Parameters
    ----------
    name_or_path : str
        Name on the hub, with its organisation, or a directory.

    Returns
    -------
    files : EncoderFiles
        The files of the first module; of a plain model of transformers, all files.

    Raises
    ------
    ValueError
        If the first module is not a transformer.
    """
    path = Path(name_or_path, "modules.json")
    if not path.parent.is_dir():
        import_transformers()
        find = partial(
            import_module("transformers.utils").cached_file,
            name_or_path,
            path.name,
            _raise_exceptions_for_missing_entries=False,
        )
        found = load_from_hub(name_or_path, find)
        path = path if found is None else Path(found)
    if not path.is_file():  # a plain model of transformers
        return EncoderFiles(name_or_path)
    first = json.loads(path.read_text("utf-8"))[0]
    if not first["type"].endswith(".Transformer"):
        raise ValueError(
            f"{name_or_path!r} has no transformer whose layers could be trained: its first module "
            f"is {first['type']}."
        )
    return EncoderFiles(name_or_path, first["path"])


def import_transformers() -> Any:
    """Import transformers; the error says how to install it."""
    return import_optional("transformers", extra="text", purpose="Hugging Face text models")
