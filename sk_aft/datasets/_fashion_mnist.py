"""A part of Fashion-MNIST: small grey pictures of clothes."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import Bunch

from sk_aft.datasets._draw import DATA, check_subset, draw_rows

_CLASSES = np.array(
    [
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ]
)


def load_fashion_mnist(
    *,
    subset: str = "train",
    labels_per_class: int | None = None,
    random_state: Any = 0,
    return_X_y: bool = False,
) -> Any:
    """Load a part of Fashion-MNIST, images in 10 classes, from the package's own files.

    The first 200 training and the first 100 test images of each class, of the 70,000 images in
    Fashion-MNIST; ``sklearn.datasets.fetch_openml("Fashion-MNIST")`` downloads all of them.

    Parameters
    ----------
    subset : {"train", "test"}, default="train"
        2,000 training rows (200 per class) or 1,000 test rows (100 per class).
    labels_per_class : int, optional
        Draw this many rows of each class at random; default: all rows.
    random_state : int, RandomState or None, default=0
        Determines which rows ``labels_per_class`` draws.
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` only.

    Returns
    -------
    bunch : Bunch
        ``data``: ndarray of shape (n_rows, 28, 28), uint8, 0 is the background and 255 the
        brightest; ``target``: ndarray of shape (n_rows,), the classes as str;
        ``target_names``: list of the 10 classes in the order of the source; ``DESCR``: source
        and licence. Rows are in the order of the source, not shuffled.
    (data, target) : tuple
        If ``return_X_y``.

    Raises
    ------
    ValueError
        If ``subset`` is unknown, or a class has fewer rows than ``labels_per_class``.

    References
    ----------
    Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
    Learning Algorithms", 2017, arXiv 1708.07747. Copyright 2017 Zalando SE, MIT licence.

    Examples
    --------
    >>> from sk_aft.datasets import load_fashion_mnist
    >>> images, classes = load_fashion_mnist(subset="test", return_X_y=True)
    >>> images.shape, str(classes[0])
    ((1000, 28, 28), 'Ankle boot')
    """
    check_subset(subset)
    with (
        (DATA / "fashion_mnist.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as arrays,
    ):
        images = arrays[f"{subset}_images"]
        target = _CLASSES[arrays[f"{subset}_labels"]]
    rows = draw_rows(target, labels_per_class, random_state)
    if return_X_y:
        return images[rows], target[rows]
    return Bunch(
        data=images[rows],
        target=target[rows],
        target_names=_CLASSES.tolist(),
        DESCR=(DATA / "README.md").read_text(encoding="utf-8"),
    )
