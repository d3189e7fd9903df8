"""The package has no circular imports."""

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import sk_aft

PACKAGE = Path(sk_aft.__file__).parent
FILES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
ESTIMATORS = {"sk_aft._student._estimator", "sk_aft._classifier", "sk_aft._regressor", "sk_aft"}
BELOW_THE_ESTIMATOR = (
    *(
        "_data",
        "_extraction",
        "_fine_tuning",
        "_runtime",
        "_student",
        "backbones",
        "modules",
        "preprocessing",
        "store",
    ),
    "transfer",
)


def imports_of(name, source, files):
    """Return the modules of ``files`` that a source imports, wherever the import stands."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = name.split(".")
            base = ".".join(parts[: len(parts) - node.level]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            for alias in node.names:
                of_package = f"{module}.{alias.name}"
                found.add(of_package if of_package in files else module)
    return {module for module in found if module in files and module != name}


@cache
def graph():
    return {name: imports_of(name, path.read_text(), FILES) for name, path in FILES.items()}


def circle_in(imports):
    """Return the modules of one circle in the order in which they import each other, or none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def test_no_imports_form_a_circle():
    circle = circle_in(graph())
    assert not circle, " imports ".join(circle)


def test_circles_are_found_wherever_the_imports_stand():
    files = {"a": None, "b": None, "c": None}
    sources = {
        "a": "from __future__ import annotations\nif TYPE_CHECKING:\n    from b import B",
        "b": "def late():\n    import c",
        "c": "from a import A",
    }
    imports = {name: imports_of(name, source, files) for name, source in sources.items()}
    assert imports == {"a": {"b"}, "b": {"c"}, "c": {"a"}}
    assert set(circle_in(imports)) == {"a", "b", "c"}
    assert circle_in({**imports, "c": set()}) == []


@pytest.mark.parametrize("folder", BELOW_THE_ESTIMATOR)
def test_nothing_below_the_estimators_imports_one(folder):
    imports = graph()
    for name in FILES:
        if name.startswith(f"sk_aft.{folder}.") and name not in ESTIMATORS:
            assert not imports[name] & ESTIMATORS, name


def test_only_the_estimators_and_the_extractor_override_skorch_or_see_each_other():
    skorch_nets = [
        name
        for name, path in FILES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        and {base.id for base in node.bases if isinstance(base, ast.Name)}
        & {"NeuralNet", "NeuralNetClassifier", "NeuralNetRegressor"}
    ]
    assert skorch_nets == [
        "sk_aft._classifier",
        "sk_aft._regressor",
        "sk_aft._student._skorch_hooks",
    ]
