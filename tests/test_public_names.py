"""Every public attribute of a public class is documented, and every parameter is, briefly."""

import ast
import importlib
import inspect
import pkgutil
import re
import textwrap

import pytest

import sk_aft
from sk_aft import FineTunedFeatureExtractor, FoundationFeatureExtractor
from tests._fine_tuning.linear_layers import LinearLayers

_LINES_A_PARAMETER = 4


def public_classes():
    packages = [sk_aft, *map(importlib.import_module, public_modules())]
    found = {
        value
        for package in packages
        for value in (getattr(package, name) for name in package.__all__)
        if inspect.isclass(value) and value.__module__.startswith("sk_aft")
    }
    return sorted(found, key=lambda cls: cls.__qualname__)


def public_modules():
    return [
        module.name
        for module in pkgutil.iter_modules(sk_aft.__path__, "sk_aft.")
        if not module.name.split(".")[1].startswith("_")
    ]


def attributes(cls):
    """Return names of a class's own attributes: those of the class, and those that are set."""
    set_on_self = {
        target.attr
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(cls))))
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Attribute)
        and isinstance(target.value, ast.Name)
        and target.value.id == "self"
    }
    return {name for name in {*vars(cls), *set_on_self} if not name.startswith("_")}


def is_documented(cls, name):
    """Return whether a class, one of its bases or the attribute itself says what it is."""
    for base in cls.__mro__:
        value = vars(base).get(name)
        if (inspect.isroutine(value) or isinstance(value, property)) and value.__doc__:
            return True
        if re.search(rf"^(\w+, )*{name}(, \w+)* : ", inspect.getdoc(base) or "", re.MULTILINE):
            return True
    return False


@pytest.mark.parametrize("cls", public_classes(), ids=lambda cls: cls.__qualname__)
def test_public_attributes_are_documented(cls):
    own = [base for base in cls.__mro__ if base.__module__.startswith("sk_aft")]
    others = [base for base in cls.__mro__ if base not in own and base.__module__ != "builtins"]
    names = set().union(*map(attributes, own)).difference(*map(attributes, others))
    assert not [name for name in sorted(names) if not is_documented(cls, name)]


def test_the_walk_finds_what_is_not_documented():
    class Example:
        """An example.

        Attributes
        ----------
        known : int
            Documented.
        """

        of_class = 1

        def __init__(self):
            self.known = self._private = 1
            self.unknown: int = 2

        def method(self):
            """Documented."""

    assert attributes(Example) == {"known", "unknown", "of_class", "method"}
    undocumented = {name for name in attributes(Example) if not is_documented(Example, name)}
    assert undocumented == {"unknown", "of_class"}


def test_a_fitted_extractor_and_its_rows_show_documented_names_only():
    extractor = FoundationFeatureExtractor(lambda rows: rows, cache=None)
    rows = extractor.fit_transform([[1.0, 2.0]])
    tuned = FineTunedFeatureExtractor(LinearLayers(), objective="linear", n_steps=1, cache=None)
    of_tuned = tuned.fit_transform([[1.0], [2.0], [3.0]], [0, 1, 1])
    for instance in (extractor, rows, tuned, of_tuned):
        names = [name for name in dir(instance) if not name.startswith("_")]
        assert not [name for name in names if not is_documented(type(instance), name)]


@pytest.mark.parametrize("cls", [FoundationFeatureExtractor, FineTunedFeatureExtractor])
def test_parameters_of_an_extractor_take_a_few_lines(cls):
    parameters = inspect.getdoc(cls).split("\nAttributes\n")[0]
    for entry in re.split(r"\n(?=\w+ : )", parameters.split("\nParameters\n")[1])[1:]:
        prose = re.split(r"\n\s*- ", entry)
        assert all(len(part.strip().splitlines()) <= _LINES_A_PARAMETER for part in prose), entry
