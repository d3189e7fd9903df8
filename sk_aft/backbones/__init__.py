"""Foundation models of several libraries behind one protocol: describe, load, embed."""

from sk_aft.backbones._base import Backbone
from sk_aft.backbones._callable import CallableBackbone
from sk_aft.backbones._efficientnet import EfficientNetLiteBackbone
from sk_aft.backbones._hugging_face import HuggingFaceBackbone
from sk_aft.backbones._hugging_face_clip import HuggingFaceClipBackbone
from sk_aft.backbones._hugging_face_images import HuggingFaceImageBackbone
from sk_aft.backbones._onnx_model import OnnxBackbone
from sk_aft.backbones._open_clip import OpenClipBackbone
from sk_aft.backbones._sentence_transformers import SentenceTransformerBackbone
from sk_aft.backbones._sklearn import SklearnBackbone
from sk_aft.backbones._specs import resolve_backbone
from sk_aft.backbones._timm import TimmBackbone
from sk_aft.backbones._torch import TorchBackbone
from sk_aft.backbones._torchvision import TorchvisionBackbone

__all__ = [
    "Backbone",
    "CallableBackbone",
    "EfficientNetLiteBackbone",
    "HuggingFaceBackbone",
    "HuggingFaceClipBackbone",
    "HuggingFaceImageBackbone",
    "OnnxBackbone",
    "OpenClipBackbone",
    "SentenceTransformerBackbone",
    "SklearnBackbone",
    "TimmBackbone",
    "TorchBackbone",
    "TorchvisionBackbone",
    "resolve_backbone",
]
