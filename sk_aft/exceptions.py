"""Errors of sk-aft that a caller may want to catch; all are also ValueErrors."""

__all__ = ["DivergenceError", "MissingFeaturesError", "SeveralKindsError"]


class DivergenceError(ValueError):
    """The loss became infinite or NaN while a student was trained.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sk_aft import AFTClassifier
    >>> from sk_aft.exceptions import DivergenceError
    >>> X, y = load_iris(return_X_y=True)
    >>> try:
    ...     AFTClassifier(beta=0, lr=1e30, random_state=0).fit(X, y)
    ... except DivergenceError as error:
    ...     print(str(error)[:15])
    The loss became
    """


class MissingFeaturesError(ValueError):
    """Features are not in a feature store that was opened read-only, so they are not computed."""


class SeveralKindsError(ValueError):
    """The columns of a DataFrame are of several kinds, but rows of one kind are expected."""
