"""Small student networks, each of which returns (logits, features)."""

from sk_aft.modules._augmentation import RandomCropAndFlip, RandomResizedCrop
from sk_aft.modules._bilinear_head import BilinearHead
from sk_aft.modules._efficientnet import EfficientNetLite
from sk_aft.modules._mixed_net import MixedNet, network_for
from sk_aft.modules._mlp import MLP
from sk_aft.modules._penultimate_features import PenultimateFeatures
from sk_aft.modules._pretrained_image import PretrainedImage
from sk_aft.modules._resnet import ResNet
from sk_aft.modules._sparse_bag import SparseBag
from sk_aft.modules._static_text import StaticText
from sk_aft.modules._transformer_text import TransformerText

__all__ = [
    "MLP",
    "BilinearHead",
    "EfficientNetLite",
    "MixedNet",
    "PenultimateFeatures",
    "PretrainedImage",
    "RandomCropAndFlip",
    "RandomResizedCrop",
    "ResNet",
    "SparseBag",
    "StaticText",
    "TransformerText",
    "network_for",
]
