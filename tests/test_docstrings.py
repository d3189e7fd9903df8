"""Docstrings of the students: identical for shared parameters, and short."""

import inspect
import re

import pytest

from sk_aft import (
    AFTClassifier,
    AFTRegressor,
    FineTunedFeatureExtractor,
    FoundationFeatureExtractor,
)

OF_ONE_KIND = {"module", "criterion", "validation_fraction"}  # outputs, losses and strata differ
OF_CLASSES = {"class_weight", "classes_"}


def entries(estimator, section):
    """Return the entries of a numpydoc section: name -> (type, text)."""
    doc = inspect.getdoc(estimator)
    (body,) = re.findall(
        rf"^{section}\n-+\n(.*?)(?=\n\n\w[\w ]+\n-+\n)", doc, re.DOTALL | re.MULTILINE
    )
    found = re.findall(r"^(\S.*?)(?: : (.*))?\n((?:(?: .*)?\n?)*)", body, re.MULTILINE)
    return {
        name: (kind, inspect.cleandoc(text))
        for names, kind, text in found
        for name in names.split(", ")
    }


@pytest.mark.parametrize("section", ["Parameters", "Attributes"])
def test_what_both_share_is_said_in_the_same_words(section):
    ours, theirs = entries(AFTClassifier, section), entries(AFTRegressor, section)
    assert set(ours) - set(theirs) <= OF_CLASSES
    assert not set(theirs) - set(ours)
    assert len(theirs) > 10
    for name in set(theirs) - OF_ONE_KIND:
        assert ours[name] == theirs[name], name


@pytest.mark.parametrize("name", ["fit", "partial_fit", "score"])
def test_methods_share_their_words(name):
    ours, theirs = (inspect.getdoc(getattr(kind, name)) for kind in (AFTClassifier, AFTRegressor))
    if ours == theirs:
        return
    a, b = (re.findall(r"^(?:X|features|sample_weight|X_unlabeled) : .*\n(?:    .*\n)+", doc, re.M)
            for doc in (ours, theirs))  # fmt: skip
    assert len(a) >= 3
    assert a == b


@pytest.mark.parametrize("estimator", [AFTClassifier, AFTRegressor])
def test_every_parameter_and_public_attribute_is_documented(estimator):
    signature = set(inspect.signature(estimator).parameters)
    assert signature == set(entries(estimator, "Parameters")) - {"**kwargs"}
    skorch = next(base for base in estimator.__mro__ if base.__module__.startswith("skorch"))
    theirs = {*dir(skorch), *dir(skorch(lambda: None))}
    ours = {name for name in dir(estimator()) if not name.startswith("_")} - theirs
    doc = inspect.getdoc(estimator)
    assert [name for name in sorted(ours) if not re.search(rf"\b{name}\b", doc)] == []
    X = [[0.0], [1.0], [2.0], [3.0]] * 5
    student = estimator(transfer="aft", max_epochs=1).fit(X, [0, 0, 1, 1] * 5, features=X)
    fitted = {name for name in dir(student) if name.endswith("_") and not name.startswith("_")}
    undocumented = fitted - theirs - set(entries(estimator, "Attributes"))
    assert undocumented == set()


@pytest.mark.parametrize(
    "estimator",
    [AFTClassifier, AFTRegressor, FoundationFeatureExtractor, FineTunedFeatureExtractor],
)
def test_no_paragraph_has_more_than_four_lines(estimator):
    for section in ("Parameters", "Attributes"):
        for name, (_, text) in entries(estimator, section).items():
            for paragraph in re.split(r"\n\s*\n|\n(?=\s*- )", text):
                assert len(paragraph.splitlines()) <= 4, (name, paragraph)
