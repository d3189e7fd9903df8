"""The data sets, as Parquet files or from where they are published."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

_HOW_TO_GET = """{path} is missing. Make it with the columns split ("train" or "test"), label and
text or image (bytes of a file), for example from the Hugging Face hub:
    from datasets import load_dataset
    load_dataset({hub!r})
Then pass its directory as --data DIR, or set SK_AFT_DATA."""

_HUB = {
    "banking77": "PolyAI/banking77",
    "sst2": "stanfordnlp/sst2",
    "trec": "CogComp/trec",
    "cifar10": "uoft-cs/cifar10",
}


class Task(NamedTuple):
    """Rows of one data set; texts, or images of shape (n, height, width, 3)."""

    rows: np.ndarray
    labels: np.ndarray
    test_rows: np.ndarray
    test_labels: np.ndarray


def load(name: str, directory: str | None) -> Task:
    """Read one data set.

    Parameters
    ----------
    name : {"banking77", "sst2", "trec", "cifar10"}
        Which.
    directory : str or None
        Where the Parquet files are; default: the variable SK_AFT_DATA.
    """
    path = Path(directory or os.environ.get("SK_AFT_DATA", ".")) / f"{name}.parquet"
    if not path.exists():
        raise SystemExit(_HOW_TO_GET.format(path=path, hub=_HUB[name]))
    table = pd.read_parquet(path)
    labels = table["label"].astype("category").cat.codes.to_numpy().astype(np.int64)
    if "text" in table:
        rows = np.array(table["text"].tolist(), dtype=object)
    else:
        rows = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in table["image"]])
    is_train = (table["split"] == "train").to_numpy()
    return Task(rows[is_train], labels[is_train], rows[~is_train], labels[~is_train])


def draw_per_class(labels: np.ndarray, n_rows: int, seed: int) -> np.ndarray:
    """Return so many rows of each class."""
    random = np.random.RandomState(seed)
    of_classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return np.concatenate([random.choice(rows, n_rows, replace=False) for rows in of_classes])
