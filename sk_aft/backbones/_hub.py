"""Loading models of the Hugging Face hub, with one request to find out whether a name exists."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sk_aft._optional import import_optional

_SECONDS = 5


def load_from_hub(name_or_path: str, load: Callable[..., Any]) -> Any:
    """Call ``load(local_files_only=...)``, with the hub if it has the model, else with local files.

    The libraries request several files from the hub and retry each for half a minute, so the name
    is checked here first.

    Parameters
    ----------
    name_or_path : str
        Name on the hub, or a directory.
    load : callable
        Loads the model, its tokenizer or its configuration.

    Returns
    -------
    loaded : object
        What ``load`` returns.

    Raises
    ------
    OSError
        If there is no such directory, the hub does not provide the model, and it was not
        downloaded before.
    """
    if Path(name_or_path).is_dir():
        return load(local_files_only=False)  # an adapter's base model may be on the hub
    try:
        _ask_hub(name_or_path)
    except ImportError:
        raise
    except Exception as error:
        reason = (str(error) or repr(error)).splitlines()[0].rstrip(". ")
    else:
        return load(local_files_only=False)
    try:
        return load(local_files_only=True)
    except OSError:
        raise OSError(
            f"Cannot find the foundation model {name_or_path!r}: it is not a directory, it was not "
            f"downloaded before, and the Hugging Face hub does not have it ({reason}). Check the "
            "spelling and the connection; a private model needs 'hf auth login'. Without a "
            "network, give a directory with the model's files, or use 'minilm'."
        ) from None


@functools.cache  # errors are not cached
def _ask_hub(name: str) -> None:
    hub = import_optional("huggingface_hub", extra="text", purpose="models of the hub")
    hub.HfApi().model_info(name, timeout=_SECONDS)
