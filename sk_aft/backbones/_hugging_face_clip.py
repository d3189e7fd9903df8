"""Models of images and texts of the Hugging Face hub, such as CLIP and SigLIP."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sk_aft._data._rows import Rows
from sk_aft.backbones._base import FeatureShapeError
from sk_aft.backbones._batches import index_batches, run_batches
from sk_aft.backbones._hugging_face import (
    check_has_no_prefix,
    load_config,
    load_model,
    load_tokenizer,
    quiet_loading,
    resolved_revision,
    with_padding,
)
from sk_aft.backbones._hugging_face_images import load_image_processor, processed
from sk_aft.backbones._image import ImageBackbone
from sk_aft.backbones._image_batches import image_batches
from sk_aft.backbones._licences import licence_of_files
from sk_aft.backbones._tokens import truncation_note


class HuggingFaceClipBackbone(ImageBackbone):
    """A model of images and texts loaded with transformers, such as CLIP, SigLIP or ALIGN.

    Images are read by one part of the model and texts by the other, by the kind of the rows. The
    features of both are projected to one space, and not normalised.

    Parameters
    ----------
    name_or_path : str
        Name on the hub (downloaded at the first use, then cached by huggingface_hub) or a
        directory with the model's files.

    Notes
    -----
    Texts are truncated to the number of tokens that the model was trained with (77 in CLIP, 64 in
    SigLIP), with a warning. The model has one output, and no other layers.
    """

    kind = None  # type: ignore[assignment]

    def __init__(self, name_or_path: str) -> None:
        check_has_no_prefix(name_or_path, type(self).__name__)
        self.name_or_path = name_or_path
        self.name = Path(name_or_path).name

    def fingerprint(self) -> dict[str, Any]:
        """Return the revision on the hub or the digest of the files."""
        # Both parts have the same: their features are of one width, and no text has the digest of
        # an image.
        return {
            "type": "transformers images and texts",
            **resolved_revision(self.name_or_path),
            "dtype": "float32",
        }

    @property
    def licence(self) -> str | None:
        """What the model card says."""
        return licence_of_files(self.name_or_path)

    @property
    def n_features_out(self) -> int | None:
        """Width of the common space, None if the configuration does not say it."""
        return getattr(load_config(self.name_or_path), "projection_dim", None)

    def check_rows(self, rows: Rows, names: Any) -> None:
        """Raise if rows are neither texts nor images that the model can read."""
        check_towers_read(rows, self.name)
        if rows.kind == "image":
            super().check_rows(rows, names)
            load_image_processor(self.name_or_path)
        else:
            load_tokenizer(self.name_or_path)

    def load(self, device: torch.device) -> Any:
        """Load the model with its image processor and its tokenizer; one of them may be missing."""
        with quiet_loading():
            processor = self._or_none(load_image_processor)
            tokenizer = self._or_none(load_tokenizer)
            tokenizer = None if tokenizer is None else with_padding(tokenizer)
            model = load_model(self.name_or_path).to(device).eval()
            return Towers(model, processor, tokenizer, names={})

    def _or_none(self, load: Callable[[str], Any]) -> Any:
        try:
            return load(self.name_or_path)
        except (OSError, ValueError):  # `check_rows` raises it if rows need what is missing
            return None

    def run(
        self, rows: Rows, layers: Sequence[int], batch_size: int, device: torch.device
    ) -> np.ndarray:
        """Run the part of the model that reads such rows."""
        return self.loaded(device).embed(rows, batch_size, device)

    def to_tensor(self, rows: Rows, indices: Sequence[int]) -> torch.Tensor:
        """Prepare images with the model's processor."""
        assert self._loaded is not None
        return processed(self._loaded[1].processor, rows, indices)["pixel_values"]

    def note(self, rows: Rows) -> str | None:
        """Say how many texts were truncated."""
        if self._loaded is None or rows.kind != "text":
            return None
        return self._loaded[1].note(rows)


class Towers(NamedTuple):
    """A loaded model of images and texts, and what prepares them.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Has ``get_image_features`` and ``get_text_features``.
    processor : transformers.BaseImageProcessor or None
        Prepares images.
    tokenizer : transformers.PreTrainedTokenizerBase or None
        Prepares texts.
    names : dict
        Names of the tensors of images and of texts, once they were made.
    """

    model: Any
    processor: Any
    tokenizer: Any
    names: dict[str, list[str]]

    def embed(self, rows: Rows, batch_size: int, device: torch.device) -> np.ndarray:
        """Return the projected features of images or texts, (n_rows, n_features) float32."""
        batches = index_batches(len(rows), batch_size)
        if rows.kind not in self.names:
            self.names[rows.kind] = list(self.inputs(rows, batches[0][:1]))
        names = self.names[rows.kind]

        def prepare(indices: range) -> tuple[torch.Tensor, ...]:
            inputs = self.inputs(rows, indices)
            return tuple(inputs[name] for name in names)

        def compute(*tensors: torch.Tensor) -> torch.Tensor:
            return self.projected(rows.kind, dict(zip(names, tensors, strict=True)))

        if rows.kind == "text":
            return np.concatenate(list(run_batches(compute, map(prepare, batches), device)))
        with image_batches(prepare, batches, device) as inputs:
            return np.concatenate(list(run_batches(compute, inputs, device)))

    def inputs(self, rows: Rows, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        """Return the tensors of some images or texts, by name."""
        if rows.kind == "image":
            return processed(self.processor, rows, indices)
        return self.tokenized([rows.values[row] for row in indices])

    def projected(self, kind: str, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the features of images or texts, (n, n_features)."""
        model = self.model
        compute = model.get_image_features if kind == "image" else model.get_text_features
        features = compute(**inputs)
        # Versions before 5 return the features alone.
        features = getattr(features, "pooler_output", features)
        if not isinstance(features, torch.Tensor) or features.ndim != 2:
            raise FeatureShapeError(
                f"{type(model).__name__} has no projected vector for {kind} rows: give a function "
                "that computes features as the model."
            )
        return features

    def tokenized(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """Return the tensors of some texts."""
        # SigLIP's text part reads the last position, and learned with padding there.
        is_padded_to_the_end = self.model.config.model_type.startswith("siglip")
        tokens = self.tokenizer(
            texts,
            padding="max_length" if is_padded_to_the_end else True,
            truncation=True,
            max_length=self.max_length,
            return_tensors="pt",
        )
        # Some tokenizers return token types that the model does not read.
        read = inspect.signature(self.model.get_text_features).parameters
        return {name: tensor for name, tensor in tokens.items() if name in read}

    @property
    def max_length(self) -> int:
        """Number of tokens of a text that the model reads."""
        known = getattr(self.model.config.text_config, "max_position_embeddings", None)
        return min(known or self.tokenizer.model_max_length, self.tokenizer.model_max_length)

    def note(self, rows: Rows) -> str | None:
        """Say how many texts were truncated."""
        remedy = "use a text model that reads longer texts"
        return truncation_note(rows.values, self.tokenizer, self.max_length, remedy)


def check_towers_read(rows: Rows, name: str) -> None:
    """Raise ValueError if rows are neither images nor texts."""
    if rows.kind not in ("image", "text"):
        raise ValueError(
            f"Model {name!r} reads images or texts, but the rows are of kind {rows.kind!r}: "
            "expected texts, or images as arrays, PIL images, paths or bytes of files."
        )
