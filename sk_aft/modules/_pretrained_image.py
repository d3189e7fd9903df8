"""Networks of timm and torchvision, fine-tuned."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sk_aft._data._resize import ImageGeometry, height_and_width
from sk_aft.backbones._parts import drop_auxiliary, last_linear, parts_of, replace_layer
from sk_aft.backbones._timm_names import n_bands_read, of_bands
from sk_aft.modules._augmentation import RandomResizedCrop
from sk_aft.modules._image_input import ImageInput, check_bands
from sk_aft.modules._small_batches import SMALL_BATCH, running_statistics
from sk_aft.modules._timm_models import (
    InputConfig,
    create_architecture,
    create_timm_model,
    input_config,
    is_timm,
)
from sk_aft.modules._training_defaults import TrainingDefaults


class PretrainedImage(nn.Module):
    """A network of timm or torchvision with a new linear layer for the task.

    Training starts from the network's weights and changes all of them. Images are resized, cropped
    and standardised as its own configuration says. In training, a random part of each image is
    cropped and resized to the whole. Images are not mirrored unless ``flip=True``, since mirroring
    changes the meaning of digits, letters, signs and sides.

    Parameters
    ----------
    network : str or torch.nn.Module
        - "timm:NAME": a model of timm with its pretrained weights. NAME may be a directory written
          by ``timm.models.save_for_hf``, or "hf-hub:OWNER/NAME".
        - An instance of a model of timm or torchvision, which is copied.
    n_outputs : int
        Number of classes or targets.
    image_size : int, tuple of (height, width) or None, default=None
        Size of the images that the network reads; None is that of its configuration, and 224 for
        torchvision. Time is proportional to its square.
    flip : bool, default=False
        Whether to mirror half of the images in training; of a student ``module__flip=True``.
    min_crop : float, default=0.7
        Smallest part of an image that a random crop keeps, as a fraction of its area; 1 does not
        crop.
    n_frozen_layers : int, default=0
        Number of parts that are not trained, from the input on; ``layers`` lists them.
    head_lr_factor : float or None, default=None
        Learning rate of the head, relative to ``lr``; None is 30, because only the head starts
        from new weights, and 1 for a head that is kept.
    layer_decay : float or None, default=None
        Learning rate of a layer, relative to that of the layer above it; None is 1.
    n_channels : int, default=3
        Number of bands of the images. Grey images are repeated for a network that reads RGB.

    Attributes
    ----------
    prepare : ImageInput
        Resizes and standardises images.
    augment : RandomResizedCrop
        Crops in training.
    network : torch.nn.Module
        The network without its classifier.
    head : Linear
        From the features to the outputs. It is the network's own if that has ``n_outputs``
        outputs; otherwise its weights start at zero.
    training_defaults : TrainingDefaults
        How it is trained unless parameters of the student change it.

    Raises
    ------
    ImportError
        If timm is not installed; it comes with the extra ``timm``.
    OSError
        If the weights of a model cannot be loaded.
    ValueError
        If the model is unknown, or reads images of another size or other bands.

    Warns
    -----
    UserWarning
        If a model has no pretrained weights, so that training starts from random ones.

    Notes
    -----
    The features are what the classifier reads: in timm ``forward_head(..., pre_logits=True)``, in
    torchvision the input of the last linear layer. torchvision's instances hold no configuration:
    images are resized to 256 pixels and cropped to 224, with ImageNet's mean and standard
    deviation. timm's few models that pad images (crop_mode "border") get images whose ratio of
    width and height is changed instead.

    Pickles hold the weights, and need timm or torchvision but neither the hub nor its cache.

    Examples
    --------
    >>> import timm, torch  # doctest: +SKIP
    >>> from sk_aft.modules import PretrainedImage
    >>> network = PretrainedImage(timm.create_model("test_resnet"), n_outputs=3)  # doctest: +SKIP
    >>> logits, features = network(torch.zeros(2, 3, 64, 64))  # doctest: +SKIP
    >>> logits.shape, features.shape  # doctest: +SKIP
    (torch.Size([2, 3]), torch.Size([2, 96]))
    """

    training_defaults = TrainingDefaults(
        lr=1e-4,
        head_lr_factor=30.0,
        weight_decay=0.01,
        warmup=0.1,
        max_gradient_norm=1.0,
        n_steps=300,
        n_epochs=3,
    )

    def __init__(
        self,
        network: Any,
        n_outputs: int,
        image_size: int | tuple[int, int] | None = None,
        flip: bool = False,
        min_crop: float = 0.7,
        n_frozen_layers: int = 0,
        head_lr_factor: float | None = None,
        layer_decay: float | None = None,
        n_channels: int = 3,
    ) -> None:
        super().__init__()
        self.n_frozen_layers = n_frozen_layers
        self.layer_decay = layer_decay
        if isinstance(network, SavedModel):
            config, network = network.input_config, network.build()
        else:
            config = input_config(network, image_size)
        if isinstance(network, str):
            network = create_timm_model(network, image_size)
        else:
            network = copy.deepcopy(network)
        # Layers are created in torch's default dtype, which may not be float32.
        self.network = network.float().to(memory_format=torch.channels_last)
        n_read = n_bands_read(network)
        check_bands(n_channels, n_read)
        mean, std = (of_bands(values, n_read) for values in (config.mean, config.std))
        self.prepare = ImageInput(mean=mean, std=std, **config.geometry._asdict())
        self.augment = RandomResizedCrop(min_crop, flip=flip)
        classifier = _take_classifier(network)
        width = self._n_features(n_read)
        keeps_head = isinstance(classifier, nn.Linear) and (
            (classifier.in_features, classifier.out_features) == (width, n_outputs)
        )
        self.head = classifier if keeps_head else _new_head(width, n_outputs)
        self.head_lr_factor = 1.0 if keeps_head and head_lr_factor is None else head_lr_factor
        self.train()

    @property
    def layers(self) -> list[nn.Module]:
        """Parts of the network without its classifier, in the order in which they run.

        The children of the network; those of a sequential stage count one by one. The first part
        also holds the weights that belong to no child, such as the embeddings of positions.
        """
        parts = parts_of(self.network)
        free = nn.ParameterList(_free_parameters(self.network, parts))
        return [nn.ModuleList([free, *parts[:1]]), *parts[1:]] if len(free) else parts

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and features of a batch of images.

        Parameters
        ----------
        images : Tensor of shape (B, n_channels, height, width)
            Images between 0 and 1.

        Returns
        -------
        logits : Tensor of shape (B, n_outputs)
            Scores.
        features : Tensor of shape (B, width)
            What the transfer acts on.
        """
        images = self.augment(self.prepare(images))
        images = images.contiguous(memory_format=torch.channels_last)
        if self.training and len(images) < SMALL_BATCH:
            with running_statistics(self.network):
                features = self._features(images)
        else:
            features = self._features(images)
        return self.head(features), features

    def _features(self, images: Tensor) -> Tensor:
        network: Any = self.network
        if is_timm(network):
            return network.forward_head(network.forward_features(images), pre_logits=True)
        return network(images)

    def _n_features(self, n_read: int) -> int:
        """Run the network once, and return the width of its features."""
        height, width = self.prepare.geometry.size
        self.network.eval()
        try:
            with torch.no_grad():
                images = torch.zeros(1, n_read, height, width, dtype=torch.float32)
                features = self._features(images)
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"{type(self.network).__name__} does not read images of {height} x {width} pixels "
                f"({error}): set module__image_size to a size that it reads, or build an instance "
                "for this size (many models of timm take img_size or dynamic_img_size=True)."
            ) from error
        if features.ndim != 2:
            raise ValueError(
                f"{type(self.network).__name__} returns features of shape "
                f"{tuple(features.shape)}, expected (n_images, width): build it with pooling, for "
                "example timm.create_model(..., global_pool='avg')."
            )
        return features.shape[1]


class SavedModel(NamedTuple):
    """A model of timm whose weights are loaded from a file.

    Parameters
    ----------
    architecture : str
        As `timm.create_model` expects it.
    img_size : list of int or None
        Size that it was built for, of models that are.
    n_bands : int
        Number of bands that it reads.
    geometry : list
        Size, interpolation, crop fraction and crop mode of its images.
    mean, std : list of float
        Of each band that it reads.
    """

    architecture: str
    img_size: list[int] | None
    n_bands: int
    geometry: list[Any]
    mean: list[float]
    std: list[float]

    @classmethod
    def of(cls, student: PretrainedImage) -> SavedModel:
        """Return what rebuilds the network of a student.

        Raises
        ------
        ValueError
            If it is a network of torchvision, which does not know its own name.
        """
        network: Any = student.network
        if not is_timm(network):
            raise ValueError(
                f"{type(network).__name__} is an instance of torchvision, which does not know how "
                "it was built: use the same network of timm, such as module='timm:resnet18'"
            )
        size = getattr(getattr(network, "patch_embed", None), "img_size", None)
        prepare = student.prepare
        return cls(
            network.pretrained_cfg["architecture"],
            None if size is None else list(size),
            len(prepare.mean),
            [list(prepare.geometry.size), *prepare.geometry[1:]],
            prepare.mean.flatten().tolist(),
            prepare.std.flatten().tolist(),
        )

    @property
    def input_config(self) -> InputConfig:
        """How its images are made."""
        size, *others = self.geometry
        geometry = ImageGeometry(height_and_width(size), *others)
        return InputConfig(geometry, tuple(self.mean), tuple(self.std))

    def build(self) -> nn.Module:
        """Return the model with random weights."""
        arguments = {} if self.img_size is None else {"img_size": tuple(self.img_size)}
        return create_architecture(self.architecture, in_chans=self.n_bands, **arguments)


def is_pretrained_image(module: Any) -> bool:
    """Return whether this is a classifier of images of timm or torchvision.

    A subclass that a user wrote is the user's own network. Neither library is imported.
    """
    origin = re.fullmatch(r"(timm|torchvision)\.models\.\w+", type(module).__module__)
    if origin is None or not isinstance(module, nn.Module):
        return False
    return is_timm(module) or last_linear(module) is not None


def _take_classifier(network: Any) -> Any:
    """Remove the classifier from a network, and return it."""
    if is_timm(network):
        classifier = network.get_classifier()
        network.reset_classifier(0)
        return classifier
    name = last_linear(network)
    assert name is not None  # see is_pretrained_image
    classifier = network.get_submodule(name)
    replace_layer(network, name, nn.Identity())
    drop_auxiliary(network)
    return classifier


def _new_head(width: int, n_outputs: int) -> nn.Linear:
    head = nn.Linear(width, n_outputs)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _free_parameters(network: nn.Module, parts: Sequence[nn.Module]) -> list[nn.Parameter]:
    """Return the weights of a network that are not in its parts."""
    held = {weights for part in parts for weights in part.parameters()}
    return [weights for weights in network.parameters() if weights not in held]
