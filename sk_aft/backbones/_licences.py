"""The licences of foundation models, from packages and model cards that are on this machine."""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

# How packages write licences that have an SPDX identifier.
_SPDX = {
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "apache software license 2.0": "Apache-2.0",
    "mit license": "MIT",
}
_LICENCE_OF_CARD = re.compile(r"^license:[ \t]*['\"]?([\w.+-]+)['\"]?[ \t]*$", re.MULTILINE)


def licence_of_package(name: str) -> str | None:
    """Return the licence of an installed package: from its metadata, or the title of its text."""
    try:
        package = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    known = package.metadata.json
    title = (package.read_text("LICENSE") or "").strip().partition("\n")[0]
    licences = (known.get("license_expression"), known.get("license"), title)
    return next(filter(None, map(spdx, licences)), None)


def licence_of_files(name_or_path: str) -> str | None:
    """Return what the model card of a directory says, or that of a name in the hub's cache.

    Nothing is downloaded.
    """
    is_directory = Path(name_or_path).is_dir()
    card = Path(name_or_path, "README.md") if is_directory else cached_file(name_or_path)
    return _licence_of_card(card) if card is not None and card.is_file() else None


def _licence_of_card(path: Path) -> str | None:
    """Return the licence in the metadata of a model card."""
    _, _, rest = path.read_text("utf-8").partition("---\n")
    found = _LICENCE_OF_CARD.search(rest.partition("\n---")[0])
    return spdx(found.group(1)) if found else None


def spdx(licence: Any) -> str | None:
    """Return a licence in SPDX's spelling where it is known; None of a whole text."""
    licence = str(licence or "").strip()
    if not licence or "\n" in licence or licence.upper() == "UNKNOWN":
        return None
    return _SPDX.get(licence.lower(), licence)


def cached_file(hub_name: str, file: str = "README.md") -> Path | None:
    """Return a file of the hub's cache; nothing is downloaded."""
    hub = sys.modules.get("huggingface_hub")  # imported by whatever loaded the model
    path = None if hub is None else hub.try_to_load_from_cache(hub_name, file)
    return Path(path) if isinstance(path, str) else None
