"""Count the estimator checks of scikit-learn that pass, compared with skorch's own nets.

    python -m benchmarks.sklearn_checks

Takes about a minute. There are no exceptions here: all failures are counted and named.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import sklearn
import skorch
import torch
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from sk_aft import AFTClassifier, AFTRegressor, FoundationFeatureExtractor


class Network(torch.nn.Module):
    """A network whose sizes are found at the first batch, for nets that do not tell them."""

    def __init__(self, n_outputs: int) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.LazyLinear(64), torch.nn.ReLU(), torch.nn.Linear(64, n_outputs)
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return logits, or predictions."""
        return self.layers(inputs)


def main() -> None:
    """Check each and print a table."""
    warnings.simplefilter("ignore")
    tanh = FoundationFeatureExtractor(np.tanh, cache=None)
    estimators: dict[str, Any] = {
        "skorch.NeuralNetClassifier": skorch.NeuralNetClassifier(
            Network,
            module__n_outputs=3,
            criterion=torch.nn.CrossEntropyLoss,
            verbose=0,
            max_epochs=50,
            lr=0.1,
        ),
        "skorch.NeuralNetRegressor": skorch.NeuralNetRegressor(
            Network, module__n_outputs=1, verbose=0, max_epochs=50, lr=0.1
        ),
        "AFTClassifier()": AFTClassifier(),
        "AFTRegressor()": AFTRegressor(),
        "AFTClassifier(transfer=None)": AFTClassifier(transfer=None),
        "AFTRegressor(transfer=None)": AFTRegressor(transfer=None),
        "extractor | AFTClassifier": make_pipeline(tanh, AFTClassifier(random_state=0)),
        "extractor | AFTRegressor": make_pipeline(tanh, AFTRegressor(random_state=0)),
        "FoundationFeatureExtractor(f)": tanh,
    }
    print(f"scikit-learn {sklearn.__version__}, skorch {skorch.__version__}")
    print(f"{'':32}{'passed':>8}{'failed':>8}{'skipped':>9}")
    for name, estimator in estimators.items():
        checks = check_estimator(estimator, on_skip=None, on_fail=None)
        count = {
            status: sum(check["status"] == status for check in checks)
            for status in ("passed", "failed", "skipped")
        }
        print(f"{name:32}{count['passed']:8}{count['failed']:8}{count['skipped']:9}", flush=True)
        failed = [check["check_name"] for check in checks if check["status"] == "failed"]
        if len(failed) <= 5:
            for check in failed:
                print(f"    {check}")


if __name__ == "__main__":
    main()
