"""Small files that the tests of the commands read."""

import csv
import json

import numpy as np
from PIL import Image

TEXTS = ["my card is lost", "where is my card", "exchange rates today", "the rate of exchange"]
LABELS = ["card", "card", "rate", "rate"]


def write_csv(path, columns, **options):
    """Write a dict of columns as CSV and return the path."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, **options)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def read_csv(path):
    """Return the rows of a CSV file as dicts."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_json_lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def texts_of(n_rows, n_labeled=None):
    """Return columns of distinct texts, of which the first have a label."""
    texts = [f"{TEXTS[row % 4]} {row}" for row in range(n_rows)]
    known = n_rows if n_labeled is None else n_labeled
    labels = [LABELS[row % 4] if row < known else "" for row in range(n_rows)]
    return {"review": texts, "topic": labels}


def write_images(folder, n_images, seed=0, brightness=0):
    """Write small pictures into a folder, which is made, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 100, (n_images, 16, 16, 3)) + brightness
    paths = [folder / f"{number}.png" for number in range(n_images)]
    for path, picture in zip(paths, pixels.astype(np.uint8), strict=True):
        Image.fromarray(picture).save(path)
    return paths
