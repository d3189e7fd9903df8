"""Banking77: questions from customers of a bank, labelled with their intents."""

from __future__ import annotations

import csv
import gzip
import io
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from sk_aft.datasets._draw import DATA, check_subset, draw_rows


def load_banking77(
    *,
    subset: str = "train",
    labels_per_class: int | None = None,
    random_state: Any = 0,
    return_X_y: bool = False,
) -> Any:
    """Load Banking77, short texts in 77 classes, from the package's own files.

    13,083 questions from customers of a bank, labelled with their intents.

    Parameters
    ----------
    subset : {"train", "test"}, default="train"
        10,003 training rows (35 to 187 per class) or 3,080 test rows (40 per class).
    labels_per_class : int, optional
        Draw this many rows of each class at random; default: all rows.
    random_state : int, RandomState or None, default=0
        Determines which rows ``labels_per_class`` draws.
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` only.

    Returns
    -------
    bunch : Bunch
        ``data``: list of n_rows str; ``target``: ndarray of shape (n_rows,), the intents as str;
        ``target_names``: list of the 77 intents, sorted as in ``classes_`` of a classifier;
        ``DESCR``: source and licence. Rows are in the order of the source, not shuffled.
    (data, target) : tuple
        If ``return_X_y``.

    Raises
    ------
    ValueError
        If ``subset`` is unknown, or a class has fewer rows than ``labels_per_class``.

    References
    ----------
    Casanueva et al., "Efficient Intent Detection with Dual Sentence Encoders", Proceedings of
    the 2nd Workshop on NLP for Conversational AI, 2020, arXiv 2003.04807. Distributed under the
    Creative Commons Attribution 4.0 International licence (CC BY 4.0).

    Examples
    --------
    >>> from sk_aft.datasets import load_banking77
    >>> texts, intents = load_banking77(subset="test", return_X_y=True)
    >>> texts[0], str(intents[0])
    ('How do I locate my card?', 'card_arrival')
    >>> len(load_banking77(labels_per_class=10).data)
    770
    """
    check_subset(subset)
    content = gzip.decompress((DATA / f"banking77_{subset}.csv.gz").read_bytes()).decode("utf-8")
    # newline="" keeps line breaks inside quoted texts.
    _, *records = csv.reader(io.StringIO(content, newline=""))
    target = np.array([intent for _, intent in records])
    rows = draw_rows(target, labels_per_class, random_state)
    data = [records[row][0] for row in rows]
    if return_X_y:
        return data, target[rows]
    return Bunch(
        data=data,
        target=target[rows],
        target_names=sorted({intent for _, intent in records}),
        DESCR=(DATA / "README.md").read_text(encoding="utf-8"),
    )
