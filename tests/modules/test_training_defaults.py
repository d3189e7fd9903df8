"""The table of training defaults in docs/guide/training.md is that of the classes."""

from pathlib import Path

import pytest

from sk_aft import modules
from sk_aft.modules._training_defaults import TrainingDefaults

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "training.md"
COLUMNS = {
    "lr": "`lr`",
    "head_lr_factor": "`head_lr_factor`",
    "weight_decay": "weight decay",
    "warmup": "warm-up",
    "max_gradient_norm": "clipping",
    "layer_decay": "layer decay",
    "n_steps": "minimum steps",
    "n_epochs": "minimum passes",
}


def table():
    """Return the cells of each row of the first table by its first cell."""
    section = PAGE.read_text().partition("## Defaults\n\n")[2].partition("\n\n")[0]
    lines = section.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    header, _, *rows = cells
    return {name.strip("`"): dict(zip(header[1:], row, strict=True)) for name, *row in rows}


def networks():
    """Return the public networks that say how they are trained."""
    return [
        name for name in modules.__all__ if hasattr(getattr(modules, name), "training_defaults")
    ]


def test_every_network_has_a_row():
    assert set(table()) == set(networks())
    assert {"MLP", "ResNet", "MixedNet"} <= set(table())


@pytest.mark.parametrize("name", networks())
def test_the_table_is_that_of_the_classes(name):
    defaults = getattr(modules, name).training_defaults
    row = table()[name]
    assert list(row) == list(COLUMNS.values())
    for field, column in COLUMNS.items():
        cell, value = row[column], getattr(defaults, field)
        assert (None if cell == "none" else float(cell.replace(",", ""))) == value, column


def test_defaults_are_those_of_training_from_random_weights():
    assert TrainingDefaults() == TrainingDefaults(
        lr=1e-3, head_lr_factor=1, weight_decay=0.01, warmup=0, max_gradient_norm=None,
        layer_decay=1, n_steps=200, n_epochs=50,
    )  # fmt: skip
