"""The feature store: features of foundation models on disk, keyed by the content of each row."""

from sk_aft.store._keys import digest_array, model_digest, row_digests
from sk_aft.store._store import FeatureStore, default_store_path

__all__ = ["FeatureStore", "default_store_path", "digest_array", "model_digest", "row_digests"]
