"""A folder with a folder of images for each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sk_aft._command._labels import CLASSIFICATION, Labels
from sk_aft._command._messages import CommandError, counted, listed
from sk_aft._command._stream import image_paths
from sk_aft._optional import import_optional


def labeled_images(folder: Path) -> tuple[list[Path], Labels]:
    """Return the images of a folder, and the folders that they are in as their labels.

    Parameters
    ----------
    folder : Path
        Holds a folder for each class, named after it. Images beside these have no label.

    Returns
    -------
    paths : list of Path
        The images.
    labels : Labels
        Their classes.

    Raises
    ------
    CommandError
        If there are images of fewer than two classes.
    """
    paths = image_paths(folder)
    classes = [
        path.relative_to(folder).parts[0] if path.parent != folder else None for path in paths
    ]
    names = sorted({name for name in classes if name is not None})
    if len(names) < 2:
        found = f"only images of {listed(names)}" if names else "no folder with images"
        raise CommandError(
            f"{folder} holds {found}: expected a folder of images for each class, named after it, "
            "such as cats/1.jpg and dogs/2.jpg."
        )
    known = [name for name in classes if name is not None]
    labeled = np.array([name is not None for name in classes], dtype=bool)
    return paths, Labels(np.array(known), labeled, CLASSIFICATION)


def unlabeled_images(folder: Path) -> list[Path]:
    """Return all images in a folder and the folders in it."""
    paths = image_paths(folder)
    if not paths:
        raise CommandError(f"The folder {folder} holds no image (.jpg, .png, ...).")
    return paths


def check_images(paths: Sequence[Path]) -> None:
    """Raise CommandError if files are missing, broken or truncated.

    JPEG files are decoded at an eighth of their size, which is quick and finds truncated ones.
    """
    image = import_optional("PIL.Image", extra="vision", purpose="reading images")
    broken = []
    for path in paths:
        try:
            with image.open(path) as opened:
                opened.draft("RGB", (64, 64))
                opened.load()
        except FileNotFoundError:
            broken.append((path, "there is no such file"))
        except image.UnidentifiedImageError:
            broken.append((path, "it is no image"))
        except (OSError, SyntaxError, ValueError, image.DecompressionBombError) as error:
            broken.append((path, str(error)))
    if broken:
        path, reason = broken[0]
        raise CommandError(
            f"{counted(len(broken), 'image')} of {len(paths):,} cannot be read, the first is "
            f"{path}: {reason}. Repair or remove it."
        )
