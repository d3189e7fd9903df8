"""Train a small network with features of large foundation models; deploy only the small one.

``make_pipeline(FoundationFeatureExtractor(...), AFTClassifier(...))`` is a scikit-learn pipeline
that is trained with foundation features and predicts without them.
"""

from sk_aft._classifier import AFTClassifier
from sk_aft._extractor import FoundationFeatureExtractor
from sk_aft._features import FoundationFeatures
from sk_aft._regressor import AFTRegressor

__version__ = "0.2.dev0"
__all__ = ["AFTClassifier", "AFTRegressor", "FoundationFeatureExtractor", "FoundationFeatures"]
