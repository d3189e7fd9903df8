"""The feature store: features of foundation models on disk, keyed by the content of each row."""

from sk_aft.store._feature_files import read_features
from sk_aft.store._keys import digest_array, model_digest, row_digests
from sk_aft.store._paths import default_store_path
from sk_aft.store._store import FeatureStore

__all__ = [
    "FeatureStore",
    "default_store_path",
    "digest_array",
    "model_digest",
    "read_features",
    "row_digests",
]
