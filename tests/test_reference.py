"""The API reference of the site names everything that is public."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import sk_aft

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
PUBLIC = [
    "sk_aft",
    *(
        f"sk_aft.{module.name}"
        for module in pkgutil.iter_modules(sk_aft.__path__)
        if not module.name.startswith("_")
    ),
]


def page_of(module):
    return REFERENCE / f"{module.removeprefix('sk_aft.')}.rst"


@pytest.mark.parametrize("module", PUBLIC)
def test_the_reference_lists_every_public_name_of_a_module(module):
    page = page_of(module).read_text(encoding="utf-8")
    assert f".. currentmodule:: {module}\n" in page
    tables = re.findall(r"\.\. autosummary::\n(?:   :.*\n)*\n((?:   \w+\n)+)", page)
    listed = [name for table in tables for name in table.split()]
    assert sorted(listed) == sorted(importlib.import_module(module).__all__)


def test_the_reference_has_a_page_for_every_public_module_and_no_other():
    index = (REFERENCE / "index.rst").read_text(encoding="utf-8")
    pages = {page.stem for page in REFERENCE.glob("*.rst")} - {"index"}
    assert pages == {page_of(module).stem for module in PUBLIC}
    assert pages == set(re.findall(r"^   (\w+)$", index, flags=re.MULTILINE))
