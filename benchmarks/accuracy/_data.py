"""The data sets, from Parquet files or from their publishers."""

from __future__ import annotations

import gzip
import io
import os
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.model_selection import train_test_split

from benchmarks.accuracy._entailment import make_entailment

_MISSING = """{path} is missing. Give the directory of the data sets as --data DIR or in the
variable SK_AFT_DATA; with --download, what is not there is fetched from {source} first."""
_BY_HAND = """{path} is missing, and cannot be downloaded. Make it with the columns split
("train" or "test"), label and image (bytes of a file): 500 X-rays of pneumonia, 500 of nothing
and 124 of Covid-19, of Ozturk et al. 2020, https://github.com/muhammedtalo/COVID-19."""
# Of each data set its name on the Hugging Face hub and its columns of rows and labels.
_HUB = {
    "banking77": ("mteb/banking77", "text", "label"),
    "sst2": ("SetFit/sst2", "text", "label"),
    "sst5": ("SetFit/sst5", "text", "label"),
    "trec": ("SetFit/TREC-QC", "text", "label_coarse"),
    "cifar10": ("uoft-cs/cifar10", "img", "label"),
    "fashion_mnist": ("zalando-datasets/fashion_mnist", "image", "label"),
}
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # apt install dataset-fashion-mnist
_MADE_OF = {"entailment": "fashion_mnist"}
_REGRESSION = ("sst5",)
_N_TEST_IMAGES = 5000  # as many say enough, and cost half as much


class Task(NamedTuple):
    """Rows of one data set: texts, images (n, height, width[, 3]), or a DataFrame of both."""

    rows: Any
    labels: np.ndarray
    test_rows: Any
    test_labels: np.ndarray
    is_regression: bool


@lru_cache(maxsize=2)
def load(name: str, directory: str | None) -> Task:
    """Read one data set.

    Parameters
    ----------
    name : str
        Which.
    directory : str or None
        Where the Parquet files are; default: the variable SK_AFT_DATA.
    """
    if name == "entailment":
        return Task(*make_entailment(*load("fashion_mnist", directory)[:4]), False)
    if missing := what_is_missing(name, directory):
        raise FileNotFoundError(missing)
    path = _path(name, directory)
    if path.exists():
        task = _read(path)
    else:
        parts = ("train", "t10k")
        task = [_read_idx(part, kind) for part in parts for kind in ("images", "labels")]
    rows, labels, test_rows, test_labels = task
    if name in _REGRESSION:
        labels, test_labels = labels.astype(float), test_labels.astype(float)
    if len(test_rows) > _N_TEST_IMAGES:
        kept = np.random.RandomState(0).permutation(len(test_rows))[:_N_TEST_IMAGES]
        test_rows, test_labels = test_rows[kept], test_labels[kept]
    return Task(rows, labels, test_rows, test_labels, name in _REGRESSION)


def what_is_missing(name: str, directory: str | None) -> str:
    """Return which file of a data set is missing and how to get it; "" if none is."""
    name = _MADE_OF.get(name, name)
    path = _path(name, directory)
    if path.exists() or (name == "fashion_mnist" and _DEBIAN.exists()):
        return ""
    if name in _HUB:
        return _MISSING.format(path=path, source=f"Hugging Face ({_HUB[name][0]})")
    return _BY_HAND.format(path=path)


def download(name: str, directory: str | None) -> None:
    """Fetch a data set from the Hugging Face hub, unless its file or Debian's is there."""
    name = _MADE_OF.get(name, name)
    path = _path(name, directory)
    if name not in _HUB or not what_is_missing(name, directory):
        return
    from datasets import load_dataset

    hub, row_column, label_column = _HUB[name]
    parts = load_dataset(hub)
    tables = [as_table(parts[split], split, row_column, label_column) for split in _SPLITS]
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.concat(tables).to_parquet(path)


_SPLITS = ("train", "test")


def as_table(part: Any, split: str, row_column: str, label_column: str) -> pd.DataFrame:
    """Return one split of a data set of the hub as this benchmark keeps it."""
    rows = part[row_column]
    if hasattr(rows[0], "save"):
        column, rows = "image", [_png(image) for image in rows]
    else:
        column, rows = "text", list(rows)
    return pd.DataFrame({"split": split, column: rows, "label": list(part[label_column])})


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _path(name: str, directory: str | None) -> Path:
    return Path(directory or os.environ.get("SK_AFT_DATA", ".")) / f"{name}.parquet"


def _read(path: Path) -> list[Any]:
    table = pd.read_parquet(path)
    labels = table["label"].astype("category").cat.codes.to_numpy().astype(np.int64)
    if "text" in table:
        rows = np.array(table["text"].tolist(), dtype=object)
    else:
        rows = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in table["image"]])
    is_train = (table["split"] == "train").to_numpy()
    return [rows[is_train], labels[is_train], rows[~is_train], labels[~is_train]]


def _read_idx(part: str, kind: str) -> np.ndarray:
    """Read a file of the format that MNIST came in."""
    n_dimensions = 3 if kind == "images" else 1
    packed = gzip.decompress((_DEBIAN / f"{part}-{kind}-idx{n_dimensions}-ubyte.gz").read_bytes())
    header = 4 + 4 * n_dimensions
    shape = np.frombuffer(packed[4:header], dtype=">i4")
    values = np.frombuffer(packed[header:], dtype=np.uint8).reshape(shape)
    return values if kind == "images" else values.astype(np.int64)


def take(rows: Any, indices: np.ndarray) -> Any:
    """Return some rows of an array or a DataFrame."""
    return rows.iloc[indices] if hasattr(rows, "iloc") else rows[indices]


def mixtures(images: np.ndarray, number: int, seed: int) -> np.ndarray:
    """Return means of two images each, one of them weighing more (Zhang et al. 2018, mixup)."""
    random = np.random.RandomState(seed)
    first, second = random.randint(len(images), size=(2, number))
    share = random.uniform(size=(number, *[1] * (images.ndim - 1)))
    mixed = np.rint(share * images[first] + (1 - share) * images[second])
    return mixed.astype(images.dtype)


def draw(task: Task, n_labels: str, seed: int) -> np.ndarray:
    """Return which training rows have a label.

    Parameters
    ----------
    task : Task
        The data.
    n_labels : str
        "all"; a number of rows, such as "5000", drawn with the classes in proportion; or a
        number of each class, such as "10 a class", of which those with fewer rows give all.
    seed : int
        Determines the draw.
    """
    every_row = np.arange(len(task.labels))
    if n_labels == "all":
        return every_row
    number = int(n_labels.split()[0])
    if n_labels.endswith("a class"):
        random = np.random.RandomState(seed)
        of_classes = [np.flatnonzero(task.labels == label) for label in np.unique(task.labels)]
        drawn = [random.choice(rows, min(number, len(rows)), replace=False) for rows in of_classes]
        return np.sort(np.concatenate(drawn))
    classes = None if task.is_regression else task.labels
    drawn, _ = train_test_split(every_row, train_size=number, stratify=classes, random_state=seed)
    return np.sort(drawn)


Split = tuple[np.ndarray, np.ndarray]


def held_out(task: Task, labeled: np.ndarray, split: int) -> Split:
    """Return labelled rows to learn from, and a fifth of them to judge with."""
    classes = None if task.is_regression else task.labels[labeled]
    n_rows = len(labeled) // 5
    if classes is not None:
        values, classes = np.unique(classes, return_inverse=True)
        if np.bincount(classes).min() < 2 or n_rows < len(values):
            classes = None
    train, test = train_test_split(labeled, test_size=n_rows, stratify=classes, random_state=split)
    return np.sort(train), np.sort(test)
