"""What the store keeps of a fine-tuned model beside its features."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import NamedTuple

WEIGHTS = "weights.safetensors"


class ModelFiles(NamedTuple):
    """Where the weights of a fine-tuned model are kept.

    Parameters
    ----------
    weights : Path
        The weights that differ from those of the original model.
    lock : context manager
        Held by the process that trains the model; released when the process ends.
    read_only : bool, default=False
        Whether the weights may only be read.
    """

    weights: Path
    lock: AbstractContextManager
    read_only: bool = False

    @property
    def checkpoint(self) -> Path:
        """The state of a training that is not finished."""
        return self.weights.with_name("checkpoint.pt")


def n_bytes_beside_rows(directory: Path) -> int:
    """Return the size of a model's weights and unfinished trainings; 0 if it was not tuned."""
    sizes = []
    # Some may be half written.
    for file in (*directory.glob("weights.*"), *directory.glob("checkpoint.*")):
        with suppress(FileNotFoundError):  # written or removed by another process
            sizes.append(file.stat().st_size)
    return sum(sizes)
