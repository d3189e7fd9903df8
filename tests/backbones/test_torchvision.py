"""Networks of torchvision as foundation models: features, layers, images and identity."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

torchvision = pytest.importorskip("torchvision")

from torchvision import models  # noqa: E402
from torchvision.transforms import functional  # noqa: E402

from sk_aft import AFTClassifier, FoundationFeatureExtractor  # noqa: E402
from sk_aft._data._rows import as_rows  # noqa: E402
from sk_aft.backbones import TorchBackbone, TorchvisionBackbone, resolve_backbone  # noqa: E402
from sk_aft.store import model_digest  # noqa: E402

CPU = torch.device("cpu")


def network(name, seed=0, **arguments):
    """Return a network with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return models.get_model(name, weights=None, **arguments).eval()


@pytest.fixture(scope="module")
def resnet():
    return network("resnet18", num_classes=3)


@pytest.fixture(scope="module")
def backbone(resnet):
    return resolve_backbone(resnet)


def embed(backbone, images, batch_size=4):
    return backbone.embed(as_rows(images), batch_size=batch_size, device=CPU)


def layers_of(backbone, layers, images):
    return backbone.embed_layers(as_rows(images), layers, batch_size=4, device=CPU)


def key(model):
    return model_digest(resolve_backbone(model).fingerprint())


def prepared(images, crop=224, resize=256):
    """Return images as torchvision's classifiers were given them."""
    tensors = []
    for image in images:
        picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
        picture = functional.resize(picture.convert("RGB"), resize)
        tensor = functional.to_tensor(functional.center_crop(picture, crop))
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        tensors.append(functional.normalize(tensor, mean, std))
    return torch.stack(tensors)


@torch.inference_mode()
def input_of(model, layer, batch):
    """Return what a layer of a network is given."""
    found = []
    hook = layer.register_forward_pre_hook(lambda _, given: found.append(given[0]))
    model(batch)
    hook.remove()
    return found[0].numpy()


@torch.inference_mode()
def output_of(model, layer, batch):
    """Return what a layer of a network returns."""
    found = []
    hook = layer.register_forward_hook(lambda _, __, output: found.append(output))
    model(batch)
    hook.remove()
    return found[0]


@pytest.mark.parametrize(
    ("name", "classifier", "width"),
    [
        ("resnet18", "fc", 512),
        ("mobilenet_v3_small", "classifier.3", 1024),
        ("shufflenet_v2_x0_5", "fc", 1024),
        ("googlenet", "fc", 1024),
        ("vit_b_32", "heads.head", 768),
    ],
)
def test_features_are_the_input_of_the_classifier(name, classifier, width, photographs):
    slow = {"init_weights": False} if name == "googlenet" else {}
    model = network(name, **slow)
    resize = models.get_model_weights(name).DEFAULT.transforms().resize_size[0]
    expected = input_of(
        model, model.get_submodule(classifier), prepared(photographs[:2], 224, resize)
    )
    backbone = resolve_backbone(model)
    assert type(backbone) is TorchvisionBackbone
    assert (backbone.name, backbone.kind, backbone.n_features_out) == (name, "image", width)
    assert backbone._loaded is None
    features = embed(backbone, photographs[:2])
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=1e-4)


def test_the_features_of_squeezenet_are_its_pooled_map(photographs):
    model = network("squeezenet1_1")
    expected = input_of(model, model.classifier, prepared(photographs[:2])).mean(axis=(2, 3))
    backbone = resolve_backbone(model)
    assert backbone.n_features_out == 512
    np.testing.assert_allclose(embed(backbone, photographs[:2]), expected, atol=1e-4)


def blocks_of(model):
    if isinstance(model, models.ResNet):
        stages = (model.layer1, model.layer2, model.layer3, model.layer4)
        return [block for stage in stages for block in stage]
    if isinstance(model, models.VisionTransformer):
        return list(model.encoder.layers)
    if isinstance(model, models.SwinTransformer):
        _, *stages = model.features
        blocks = [[stage] if hasattr(stage, "reduction") else list(stage) for stage in stages]
        return [block for stage in blocks for block in stage]
    return list(model.features)


def mean_of(model, output):
    if isinstance(model, models.VisionTransformer):
        return output[:, 1:].mean(dim=1)  # without the token of the class
    return output.mean(dim=(1, 2) if isinstance(model, models.SwinTransformer) else (2, 3))


@pytest.mark.parametrize(
    ("name", "n_layers", "middle"),
    [
        ("resnet18", 7, 5),
        ("mobilenet_v3_small", 12, 8),
        ("vit_b_32", 11, 7),
        ("swin_t", 14, 9),
    ],
)
def test_layers_are_the_blocks(name, n_layers, middle, photographs):
    model = network(name)
    backbone = resolve_backbone(model)
    assert (backbone.n_layers, backbone.middle_layer) == (n_layers, middle)
    weights = models.get_model_weights(name).DEFAULT.transforms()
    batch = torch.stack([weights(Image.fromarray(image)) for image in photographs[:2]])
    blocks = blocks_of(model)
    assert len(blocks) == n_layers + 1
    layers = (middle, n_layers, 0)
    expected = [mean_of(model, output_of(model, blocks[layer], batch)) for layer in (middle, 0)]
    widths = [backbone.layer_width(middle), backbone.n_features_out]
    assert widths[0] == expected[0].shape[1]
    assert backbone.layer_width(0) == expected[1].shape[1]
    features = layers_of(backbone, layers, photographs[:2])
    in_the_middle, last, first = np.split(features, np.cumsum(widths), axis=1)
    np.testing.assert_allclose(in_the_middle, expected[0], atol=1e-4)
    np.testing.assert_allclose(first, expected[1], atol=1e-4)
    np.testing.assert_allclose(last, embed(backbone, photographs[:2]), atol=1e-4)


def test_vgg_has_no_blocks():
    with torch.device("meta"):
        model = models.vgg11()
    backbone = resolve_backbone(model)
    assert (backbone.n_layers, backbone.n_features_out) == (None, 4096)


def test_every_architecture_is_recognised_by_the_shapes_of_its_weights():
    for name in ("resnet50", "wide_resnet50_2", "resnext50_32x4d", "densenet169", "vgg13_bn"):
        with torch.device("meta"):
            model = models.get_model(name, num_classes=5)
        assert resolve_backbone(model).name == name


def test_onnx_agrees_with_pytorch():
    images = np.random.default_rng(0).integers(0, 256, (304, 8, 8, 3), dtype=np.uint8)
    backbone = resolve_backbone(network("shufflenet_v2_x0_5"))
    layers = (backbone.middle_layer, backbone.n_layers)
    expected = layers_of(backbone, layers, images[:10])
    features = layers_of(backbone, layers, images)
    assert backbone.loaded(CPU).of_layers(layers).session is not None
    np.testing.assert_allclose(features[:10], expected, atol=1e-3)


def test_threads_share_a_model(backbone, photographs):
    jobs = [((5, 7), slice(0, 2)), ((1, 7), slice(2, 4)), ((5, 0), slice(4, 6))] * 2
    expected = [layers_of(backbone, layers, photographs[rows]) for layers, rows in jobs]
    found = [None] * len(jobs)

    def work(number):
        layers, rows = jobs[number]
        found[number] = layers_of(backbone, layers, photographs[rows])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for features, own in zip(found, expected, strict=True):
        np.testing.assert_allclose(features, own, atol=1e-5)


# ---------------------------------------------------------------- the user's object


def test_the_users_network_is_not_changed(resnet, backbone, photographs):
    model = copy.deepcopy(resnet).train()
    before = {name: weights.clone() for name, weights in model.state_dict().items()}
    own = resolve_backbone(model)
    layers_of(own, (5, 7), photographs[:2])
    assert all(part.training for part in model.modules())
    assert model.fc.out_features == 3
    assert all(weights.requires_grad for weights in model.parameters())
    assert not any(part._forward_hooks for part in model.modules())
    for name, weights in model.state_dict().items():
        torch.testing.assert_close(weights, before[name], rtol=0, atol=0)
    np.testing.assert_allclose(embed(own, photographs), embed(backbone, photographs), atol=1e-5)


def test_features_are_those_of_the_weights_that_the_network_has_now(resnet, photographs):
    model = copy.deepcopy(resnet)
    backbone = resolve_backbone(model)
    before, first = embed(backbone, photographs[:2]), key(backbone)
    with torch.no_grad():
        model.layer4[1].conv2.weight.mul_(2)
    assert key(backbone) != first
    after = embed(backbone, photographs[:2])
    assert not np.allclose(after, before, atol=1e-3)
    expected = input_of(model, model.fc, prepared(photographs[:2]))
    np.testing.assert_allclose(after, expected, atol=1e-4)


@pytest.mark.parametrize("form", ["identity", "two layers", "no classifier"])
def test_a_classifier_of_the_users_own(form, photographs):
    model = network("vit_b_32" if form == "no classifier" else "resnet18")
    expected = embed(resolve_backbone(model), photographs[:2])
    if form == "identity":
        model.fc = nn.Identity()
    elif form == "no classifier":
        model.heads = nn.Identity()
    else:
        model.fc = nn.Sequential(nn.Linear(512, 20), nn.ReLU(), nn.Linear(20, 2))
        expected = nn.functional.linear(torch.tensor(expected), model.fc[0].weight)
        expected = (expected + model.fc[0].bias).relu().detach().numpy()
    backbone = resolve_backbone(model)
    assert backbone.n_features_out == expected.shape[1]
    np.testing.assert_allclose(embed(backbone, photographs[:2]), expected, atol=1e-4)


def test_only_its_own_classifiers_are_recognised():
    class Mine(models.ResNet):
        pass

    with torch.device("meta"):
        mine = Mine(models.resnet.BasicBlock, [1, 1, 1, 1])
        block = models.resnet18().layer1[0]
        segmentation = models.segmentation.fcn_resnet50(weights_backbone=None)
    for module in (mine, block, segmentation, nn.Linear(2, 2)):
        assert type(resolve_backbone(module)) is TorchBackbone
    with pytest.raises(TypeError, match="got Mine, expected an instance of a classifier of torchv"):
        TorchvisionBackbone(mine)


# ---------------------------------------------------------------- images


def test_pictures_of_all_forms_are_those_of_the_transforms(resnet, backbone, photographs, tmp_path):
    pictures = [
        Image.fromarray(photographs[0]).resize((301, 211)),
        Image.fromarray(photographs[1]).resize((97, 131)),
        Image.fromarray(photographs[2]).convert("L"),
    ]
    expected = input_of(resnet, resnet.fc, prepared(pictures))
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / f"{number}.png")
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    arrays = [np.asarray(picture) for picture in pictures]
    floats = [array / 255 for array in arrays]
    for form in (pictures, paths, list(map(str, paths)), arrays, floats):
        np.testing.assert_allclose(embed(backbone, form), expected, atol=1e-4)


def test_images_of_other_bands_are_refused(backbone, photographs):
    five = np.concatenate([photographs, photographs[..., :2]], axis=3)
    with pytest.raises(ValueError, match="reads grey or RGB images, but row 0 has 5 bands"):
        FoundationFeatureExtractor(backbone).fit(five)


def test_weights_decide_how_images_are_prepared(photographs):
    model = network("resnet50")
    batches = {
        "IMAGENET1K_V1": prepared(photographs[:1]),
        None: prepared(photographs[:1], 224, 232),
    }
    for name, batch in batches.items():
        backbone = TorchvisionBackbone(model, weights=name)
        rows = as_rows(photographs)
        torch.testing.assert_close(backbone.to_tensor(rows, [0]), batch, atol=1e-4, rtol=0)
    entry = TorchvisionBackbone(model, models.ResNet50_Weights.IMAGENET1K_V1)
    assert key(entry) == key(TorchvisionBackbone(model, "IMAGENET1K_V1"))
    assert key(entry) != key(model)
    message = r"weights='V3': expected one of \['IMAGENET1K_V1', .*the weights of resnet50"
    with pytest.raises(ValueError, match=message):
        TorchvisionBackbone(model, "V3")


def test_a_vision_transformer_gets_images_of_its_size(photographs):
    with torch.device("meta"):
        large = models.vit_b_16(image_size=384)
        other = models.vit_b_16(image_size=160)
    backbone = resolve_backbone(large)
    assert backbone.to_tensor(as_rows(photographs), [0]).shape == (1, 3, 384, 384)
    with pytest.raises(ValueError, match="This vit_b_16 reads images of 160 x 160 pixels"):
        resolve_backbone(other)


def test_an_architecture_that_torchvision_does_not_name(photographs):
    model = models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=2).eval()
    with pytest.raises(ValueError, match=r"ResNet is none of torchvision's.*TorchBackbone\(module"):
        resolve_backbone(model)
    backbone = TorchvisionBackbone(model, weights=models.ResNet18_Weights.DEFAULT)
    expected = input_of(model, model.fc, prepared(photographs[:2]))
    np.testing.assert_allclose(embed(backbone, photographs[:2]), expected, atol=1e-4)
    assert (backbone.name, backbone.n_layers) == ("resnet", 3)


# ---------------------------------------------------------------- identity


def test_the_fingerprint_is_that_of_weights_and_preprocessing(resnet):
    assert key(resnet) == key(copy.deepcopy(resnet)) == key(network("resnet18", num_classes=3))
    assert key(resnet) != key(network("resnet18", seed=1, num_classes=3))
    assert resolve_backbone(resnet).is_persistent


def test_a_pickle_holds_the_network_once(backbone, photographs):
    expected = embed(backbone, photographs[:2])
    pickled = pickle.dumps(backbone)
    n_bytes = sum(weights.nbytes for weights in backbone.module.state_dict().values())
    assert len(pickled) < 1.1 * n_bytes
    copied = pickle.loads(pickled)
    assert copied._loaded is None
    assert key(copied) == key(backbone)
    np.testing.assert_array_equal(embed(copied, photographs[:2]), expected)
    backbone.unload()
    np.testing.assert_array_equal(embed(backbone, photographs[:2]), expected)


def test_a_second_extractor_takes_the_features_from_the_store(resnet, photographs):
    first = FoundationFeatureExtractor(copy.deepcopy(resnet), layers="auto")
    features = first.fit_transform(photographs).features
    assert features.shape == (6, 256 + 512)
    backbone = resolve_backbone(resnet)
    again = FoundationFeatureExtractor(backbone, layers="auto").fit_transform(photographs)
    np.testing.assert_array_equal(again.features, features)
    assert backbone._loaded is None


def test_a_student_learns_from_it(backbone, photographs):
    images = np.stack([np.roll(photographs[i % 6], i, axis=1) for i in range(18)])
    rows = FoundationFeatureExtractor(backbone, layers=[1, -1]).fit_transform(images)
    assert rows.features.shape == (18, 64 + 512)
    student = AFTClassifier(max_epochs=2, random_state=0).fit(rows, np.arange(18) % 2)
    assert student.predict_proba(images).shape == (18, 2)


def test_it_cannot_be_fine_tuned(backbone):
    with pytest.raises(ValueError, match=r"\(TorchvisionBackbone\) cannot be fine-tuned: expected"):
        backbone.check_tunable()
