"""Models of transformers that the user has loaded and that read images, or images and texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from sk_aft._data._rows import Rows
from sk_aft.backbones._hidden_states import without_traces
from sk_aft.backbones._hugging_face import load_tokenizer, with_padding
from sk_aft.backbones._hugging_face_clip import Towers, check_towers_read
from sk_aft.backbones._hugging_face_images import (
    VisionModel,
    check_reads_pixels,
    image_network,
    load_image_processor,
    processed,
    widths_of,
)
from sk_aft.backbones._image import ImageBackbone, run_on_images
from sk_aft.backbones._loaded_models import LoadedModel
from sk_aft.backbones._text_objects import tokenizer_digest
from sk_aft.backbones._torch import borrowed

_POOLING = "auto"
_REMEDY = (
    "load the model with from_pretrained, from a directory or a name on the hub that has it, or "
    "save the model and it to one directory, and give 'hf:DIRECTORY'."
)


class TransformersImageObject(LoadedModel, VisionModel):
    """A vision model of transformers that the user has loaded.

    Its features are those of `HuggingFaceImageBackbone`.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Any vision model; its head is not used. Its image processor is that of the directory or hub
        name from which it was loaded.

    Raises
    ------
    ValueError
        If there is no image processor.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model.base_model)
        self.name = type(model).__name__.lower()
        self.processor = _found(load_image_processor, model, "image processor")

    def settings(self) -> dict[str, Any]:
        """Return the image processor's settings and the pooling."""
        return {"processor": _described(self.processor), "pooling": _POOLING}

    @cached_property
    def _widths(self) -> tuple[int | None, tuple[int, ...]]:
        """Widths of the features and of the hidden states, from the configuration."""
        return widths_of(self.model.config, _POOLING, self.name)

    def check_rows(self, rows: Rows, names: Any) -> None:
        """Raise if images cannot be read."""
        super().check_rows(rows, names)
        check_reads_pixels(self.processor, self.name)

    def load(self, device: torch.device) -> Any:
        """Return the model, which is loaded."""
        return self.model

    def to_tensor(self, rows: Rows, indices: Sequence[int]) -> torch.Tensor:
        """Prepare images with the model's processor."""
        return processed(self.processor, rows, indices)["pixel_values"]

    def run(
        self, rows: Rows, layers: Sequence[int], batch_size: int, device: torch.device
    ) -> np.ndarray:
        """Run the model on the images, batch by batch."""
        with borrowed(self.model, device), without_traces(self.model):
            network = image_network(self.model, device, _POOLING).of_layers(layers)
            return run_on_images(
                network, lambda some: self.to_tensor(rows, some), len(rows), batch_size
            )


class TransformersClipObject(LoadedModel, ImageBackbone):
    """A model of images and texts of transformers that the user has loaded, such as CLIP.

    Its features are those of `HuggingFaceClipBackbone`.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Its image processor and its tokenizer are those of the directory or hub name from which it
        was loaded. One of them may be missing if no such rows are given.

    Raises
    ------
    ValueError
        If there is neither an image processor nor a tokenizer.
    """

    kind = None  # type: ignore[assignment]

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self._missing: dict[str, ValueError] = {}
        processor = self._or_missing("image", load_image_processor, "image processor")
        tokenizer = self._or_missing("text", load_tokenizer, "tokenizer")
        if len(self._missing) == 2:
            raise self._missing["image"]
        tokenizer = None if tokenizer is None else with_padding(tokenizer)
        self.towers = Towers(model, processor, tokenizer, names={})

    def _or_missing(self, kind: str, load: Any, what: str) -> Any:
        try:
            return _found(load, self.model, what)
        except ValueError as error:
            self._missing[kind] = error
            return None

    def settings(self) -> dict[str, Any]:
        """Return the settings of the image processor and the tokenizer's digest."""
        _, processor, tokenizer, _ = self.towers
        return {
            "processor": None if processor is None else _described(processor),
            "tokenizer": None if tokenizer is None else tokenizer_digest(tokenizer),
        }

    def check_rows(self, rows: Rows, names: Any) -> None:
        """Raise if rows are neither texts nor images that the model can read."""
        check_towers_read(rows, self.name)
        if rows.kind in self._missing:
            raise self._missing[rows.kind]
        if rows.kind == "image":
            super().check_rows(rows, names)

    def load(self, device: torch.device) -> Any:
        """Return the model, which is loaded."""
        return self.model

    def to_tensor(self, rows: Rows, indices: Sequence[int]) -> torch.Tensor:
        """Prepare images with the model's processor."""
        return processed(self.towers.processor, rows, indices)["pixel_values"]

    def run(
        self, rows: Rows, layers: Sequence[int], batch_size: int, device: torch.device
    ) -> np.ndarray:
        """Run the part of the model that reads such rows."""
        with borrowed(self.model, device):
            return self.towers.embed(rows, batch_size, device)

    def note(self, rows: Rows) -> str | None:
        """Say how many texts were truncated."""
        return self.towers.note(rows) if rows.kind == "text" else None


def _found(load: Any, model: Any, what: str) -> Any:
    """Load what prepares a model's rows from where the model was loaded."""
    name = type(model).__name__
    try:
        if not model.name_or_path:
            raise OSError("the model was not loaded from a directory or the hub")
        return load(model.name_or_path)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"The {what} of this {name} cannot be found ({reason}): {_REMEDY}"
        ) from error


def _described(processor: Any) -> str:
    return json.dumps(processor.to_dict(), sort_keys=True, default=str)
