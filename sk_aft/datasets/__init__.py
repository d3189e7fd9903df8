"""Two small real data sets of the package, for a first comparison, examples and tests."""

from sk_aft.datasets._banking77 import load_banking77
from sk_aft.datasets._fashion_mnist import load_fashion_mnist

__all__ = ["load_banking77", "load_fashion_mnist"]
