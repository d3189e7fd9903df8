"""Networks of timm and torchvision: features, head, layers and images as their own."""

import doctest
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")

from sk_aft.modules import PretrainedImage, _pretrained_image  # noqa: E402
from sk_aft.modules._named import named_network  # noqa: E402

ARCHITECTURES = [
    "test_resnet",
    "test_efficientnet",
    "test_convnext",
    "test_mambaout",  # its head has a hidden layer
    "test_vit",
    "test_vit3",
    "levit_128s",
]


def saved(directory, name="test_resnet", **arguments):
    """Save a model with random weights, and return the name under which it is found."""
    model = timm.create_model(name, **arguments)
    timm.models.save_for_hf(model, str(directory), safe_serialization=True)
    return f"timm:{directory}", model


def photo(height, width, seed=0):
    """Return a picture with edges, gradients and noise."""
    random = np.random.RandomState(seed)
    coarse = random.randint(0, 256, (height // 8 + 1, width // 8 + 1, 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.BICUBIC))
    noisy = smooth + random.normal(0, 12, smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def prepared(module, images, **parameters):
    """Return the input of a student's network, as the preprocessor and the network make it."""
    named = named_network(module, parameters)
    uint8 = named.make_preprocessor().fit(images).transform(images)
    assert uint8.dtype == np.uint8
    network = named.build(n_outputs=2, n_channels=uint8.shape[1], **parameters)
    return network.prepare(torch.from_numpy(uint8).float() / 255), network.prepare.std


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_features_are_what_timms_classifier_reads(name):
    model = timm.create_model(name).eval()
    network = PretrainedImage(model, n_outputs=3).eval()
    images = torch.rand(2, 3, *network.prepare.geometry.size)
    with torch.no_grad():
        logits, features = network(images)
        maps = model.forward_features(network.prepare(images))
        expected = model.forward_head(maps, pre_logits=True)
    torch.testing.assert_close(features, expected)
    assert logits.shape == (2, 3)
    assert not logits.any()  # the new head starts at zero


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_small", "vit_b_32", "densenet121", "googlenet"]
)
def test_features_are_the_input_of_torchvisions_last_linear_layer(name):
    arguments = {"init_weights": False} if name == "googlenet" else {}
    model = torchvision.models.get_model(name, weights=None, **arguments).eval()
    classifier = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
    inputs = []
    network = PretrainedImage(model, n_outputs=3).eval()
    images = torch.rand(2, 3, 224, 224)
    classifier.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    with torch.no_grad():
        _, features = network(images)
        model(network.prepare(images))
    torch.testing.assert_close(features, inputs[0])
    assert network.train()(images)[1].shape == features.shape
    assert "aux" not in "".join(name for name, _ in network.named_parameters()).lower()


def test_the_instance_is_copied_and_its_weights_are_kept():
    model = timm.create_model("test_resnet")
    before = {name: weights.clone() for name, weights in model.state_dict().items()}
    network = PretrainedImage(model, n_outputs=3)
    with torch.no_grad():
        for weights in network.parameters():
            weights.add_(1)
    assert model.fc.out_features == 1000
    for name, weights in model.state_dict().items():
        torch.testing.assert_close(weights, before[name])


@pytest.mark.parametrize("kind", ["timm", "torchvision"])
def test_a_head_that_fits_is_kept(kind):
    if kind == "timm":
        model = timm.create_model("test_resnet", num_classes=4).eval()
    else:
        model = torchvision.models.resnet18(num_classes=4).eval()
    network = PretrainedImage(model, n_outputs=4).eval()
    assert network.head_lr_factor == 1
    images = torch.rand(2, 3, *network.prepare.geometry.size)
    with torch.no_grad():
        torch.testing.assert_close(network(images)[0], model(network.prepare(images)))
    other = PretrainedImage(model, n_outputs=5)
    assert other.head.out_features == 5
    assert other.head_lr_factor is None


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit", "torchvision"])
def test_the_layers_hold_everything_but_the_head(name):
    if name == "torchvision":
        model, n_blocks = torchvision.models.vit_b_32(), 12
    else:
        model = timm.create_model(name)
        stages = [
            getattr(model, n) for n in ("layer1", "layer2", "layer3", "layer4") if hasattr(model, n)
        ]
        stages = stages or ([model.blocks] if name == "test_vit" else list(model.blocks))
        n_blocks = sum(len(stage) for stage in stages)
    network = PretrainedImage(model, n_outputs=2)
    layers = network.layers
    held = [weights for layer in layers for weights in layer.parameters()]
    others = {name for name, weights in network.named_parameters()} - {"head.weight", "head.bias"}
    assert len({id(weights) for weights in held}) == len(held) == len(others)
    assert n_blocks < len(layers) <= n_blocks + 6  # stem, norm and last convolution
    if "vit" in name or name == "torchvision":
        first = {id(weights) for weights in layers[0].parameters()}
        embedded = [w for n, w in network.named_parameters() if "pos_embed" in n or "class" in n]
        assert embedded
        assert {id(weights) for weights in embedded} <= first


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
@pytest.mark.parametrize(
    "shapes",
    [[(300, 411), (131, 97)], [(40, 52)], [(160, 160)]],
    ids=["photographs", "small", "its own size"],
)
def test_images_are_those_of_timms_evaluation_transform(name, shapes, tmp_path):
    spec, model = saved(tmp_path, name)
    images = [photo(*shape) for shape in shapes]
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    expected = torch.stack([transform(image) for image in images])
    for module in (spec, model):
        found, std = prepared(module, images)
        assert ((found - expected) * std * 255).abs().max() <= 2


@pytest.mark.parametrize("size", [64, (48, 80)])
def test_image_size_replaces_the_models_own(size, tmp_path):
    height, width = (size, size) if isinstance(size, int) else size
    spec, model = saved(tmp_path, "test_efficientnet")
    config = timm.data.resolve_data_config({"input_size": (3, height, width)}, model=model)
    images = [photo(300, 411), photo(131, 97)]
    expected = torch.stack([timm.data.create_transform(**config)(image) for image in images])
    for module in (spec, model):
        found, std = prepared(module, images, image_size=size)
        assert ((found - expected) * std * 255).abs().max() <= 2


def test_images_of_torchvision_are_resized_to_256_and_cropped_to_224():
    images = [photo(300, 411), photo(131, 97)]
    transform = torchvision.transforms._presets.ImageClassification(crop_size=224)
    expected = torch.stack([transform(image) for image in images])
    found, std = prepared(torchvision.models.resnet18(), images)
    assert ((found - expected) * std * 255).abs().max() <= 2


def test_other_configurations_squash_images(tmp_path):
    model = timm.create_model("test_resnet", pretrained_cfg_overlay={"crop_mode": "squash"})
    images = [photo(300, 411), photo(131, 97)]
    config = timm.data.resolve_model_data_config(model)
    assert config["crop_mode"] == "squash"
    expected = torch.stack([timm.data.create_transform(**config)(image) for image in images])
    found, std = prepared(model, images)
    assert ((found - expected) * std * 255).abs().max() <= 2


def test_grey_images_are_repeated_and_rgb_becomes_grey_for_one_band():
    rgb = PretrainedImage(timm.create_model("test_resnet"), n_outputs=2, n_channels=1).eval()
    grey_images = torch.rand(2, 1, 160, 160)
    repeated = grey_images.expand(-1, 3, -1, -1)
    torch.testing.assert_close(rgb(grey_images)[1], rgb(repeated)[1])
    grey = PretrainedImage(timm.create_model("test_resnet", in_chans=1), n_outputs=2).eval()
    torch.testing.assert_close(grey.prepare(repeated), (grey_images - 0.5) / 0.5)
    four = timm.create_model("test_resnet", in_chans=4)
    assert PretrainedImage(four, n_outputs=2, n_channels=4).prepare.mean.shape == (4, 1, 1)
    with pytest.raises(ValueError, match="reads images with 4 bands, and these have 3 bands"):
        PretrainedImage(four, n_outputs=2)
    with pytest.raises(ValueError, match="reads grey and RGB images, and these have 13 bands"):
        PretrainedImage(timm.create_model("test_resnet"), n_outputs=2, n_channels=13)


def test_a_vision_transformer_is_built_for_the_size(tmp_path):
    spec, model = saved(tmp_path, "test_vit")
    network = PretrainedImage(spec, n_outputs=2, image_size=64).eval()
    assert network(torch.rand(2, 3, 64, 64))[1].shape == (2, 64)
    weights = network.network.blocks[0].mlp.fc1.weight
    torch.testing.assert_close(weights, model.blocks[0].mlp.fc1.weight)
    fixed = timm.create_model("test_vit", dynamic_img_size=False)
    message = r"VisionTransformer does not read images of 64 x 64 pixels .*dynamic_img_size=True"
    with pytest.raises(ValueError, match=message):
        PretrainedImage(fixed, n_outputs=2, image_size=64)
    dynamic = timm.create_model("test_vit", dynamic_img_size=True)
    PretrainedImage(dynamic, n_outputs=2, image_size=64)


def test_a_vision_transformer_for_another_size_keeps_it(tmp_path):
    spec, model = saved(tmp_path, "test_vit", img_size=64)
    for network in (spec, model):
        assert PretrainedImage(network, n_outputs=2).prepare.geometry.size == (64, 64)


def test_a_network_without_pooling():
    model = timm.create_model("test_resnet", num_classes=0, global_pool="")
    with pytest.raises(ValueError, match=r"features of shape \(1, 96, 5, 5\).*with pooling"):
        PretrainedImage(model, n_outputs=2)


def test_training_crops_and_mirrors_only_on_request():
    model = timm.create_model("test_resnet")
    images = torch.rand(32, 3, 160, 160)
    plain = PretrainedImage(model, n_outputs=2, min_crop=1.0)
    prepared = plain.prepare(images)
    assert plain.augment(prepared) is prepared
    mirrored = PretrainedImage(model, n_outputs=2, min_crop=1.0, flip=True).augment(prepared)
    distance = (mirrored - prepared).abs().amax(dim=(1, 2, 3))
    distance_to_mirrored = (mirrored - prepared.flip(3)).abs().amax(dim=(1, 2, 3))
    assert torch.minimum(distance, distance_to_mirrored).max() < 1e-3
    assert 0 < (distance_to_mirrored < 1e-3).sum() < len(images)


def test_only_their_own_networks_are_recognised():
    class Mine(type(timm.create_model("test_resnet"))):
        pass

    resnet18 = torchvision.models.resnet18()
    mine = Mine(timm.models.resnet.BasicBlock, (1, 1, 1, 1))
    for module in (timm.create_model("test_vit"), resnet18):
        named = named_network(module, {})
        assert (named.kind, named.name) == ("image", type(module).__name__)
    features = timm.create_model("test_resnet", features_only=True)
    segmentation = torchvision.models.segmentation.fcn_resnet50(weights_backbone=None)
    for module in (mine, nn.Linear(2, 2), features, segmentation, torchvision.models.resnet18):
        assert named_network(module, {}) is None


def test_unknown_names(tmp_path):
    with pytest.raises(ValueError, match=r"'timm:resnet81' is unknown: .* one of \['resnet18'"):
        named_network("timm:resnet81", {})
    with pytest.raises(ValueError, match=r"Invalid pretrained tag .*'test_resnet.r160_in1k'"):
        named_network("timm:test_resnet.mine", {})
    with pytest.raises(ValueError, match=r"holds no model of timm .*save_for_hf\(model"):
        named_network(f"timm:{tmp_path}", {})


def test_a_model_without_pretrained_weights_is_random_with_a_warning():
    name = next(n for n in ("cs3darknet_s", "convnext_atto_rms") if timm.is_model(n))
    with pytest.warns(UserWarning, match=f"'timm:{name}' has no pretrained weights: training st"):
        PretrainedImage(f"timm:{name}", n_outputs=2, image_size=64)


def test_weights_that_cannot_be_loaded(tmp_path):
    """A new process, since the libraries read the environment when they are imported."""
    program = """
from sk_aft.modules import PretrainedImage
try:
    PretrainedImage("timm:test_resnet", n_outputs=2)
except OSError as error:
    print(error)
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert "weights of 'timm:test_resnet' cannot be loaded, and training does not" in run.stdout
    assert "timm.create_model('test_resnet', pretrained=True) on another and copy" in run.stdout
    assert "use an instance as module" in run.stdout


def test_the_example_of_the_docstring():
    source = _pretrained_image.PretrainedImage.__doc__.replace("  # doctest: +SKIP", "")
    example = doctest.DocTestParser().get_doctest(source, {}, "PretrainedImage", None, 0)
    assert doctest.DocTestRunner().run(example).failed == 0
