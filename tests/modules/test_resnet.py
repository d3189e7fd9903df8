"""Augmentation in training does not change an image's meaning."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from sk_aft import AFTClassifier
from sk_aft.modules import MixedNet, ResNet

RNG = np.random.RandomState(0)
LABELS = np.arange(400) % 2


def mirror_images():
    """A triangle somewhere in noise, and its mirror image."""
    images = RNG.rand(400, 10, 10) * 60
    triangle = np.tril(np.full((6, 6), 150.0))
    for image, label in zip(images, LABELS, strict=True):
        top, left = RNG.randint(0, 5, 2)
        image[top : top + 6, left : left + 6] += triangle if label else triangle[:, ::-1]
    return images.astype(np.uint8)


def score(images, labels, n_train, **settings):
    model = AFTClassifier(ResNet, beta=0, random_state=0, **settings).fit(
        images[:n_train], labels[:n_train]
    )
    return model.score(images[n_train:], labels[n_train:])


def test_classes_that_are_mirror_images_of_each_other_are_told_apart():
    assert score(mirror_images(), LABELS, 300, max_epochs=20, batch_size=32) > 0.98


def test_digits_are_told_apart():
    digits = load_digits()
    assert score(digits.images, digits.target, 900, max_epochs=10, batch_size=32) > 0.96


@pytest.mark.parametrize("scale", [1, 15])
def test_dark_images_are_learned_as_fast_as_bright_ones(scale):
    digits = load_digits()
    images = (digits.images * scale).astype(np.uint8)
    assert score(images, digits.target, 600, max_epochs=10) > 0.85


def test_mirroring_is_asked_for():
    assert not ResNet(1, 2).augment.flip
    assert ResNet(1, 2, flip=True).augment.flip
    parts = {"image": {"n_channels": 3}, "numbers": {"n_inputs": 4}}
    assert not MixedNet(parts, n_outputs=2).branches[0].augment.flip
    model = AFTClassifier(ResNet, beta=0, module__flip=True, max_epochs=1)
    assert model.fit(mirror_images()[:20], LABELS[:20]).module_.augment.flip


@pytest.mark.parametrize("n_channels", [2, 13])
def test_any_number_of_bands(n_channels):
    images = RNG.rand(20, 8, 8, n_channels)
    model = AFTClassifier(beta=0, max_epochs=1).fit(images, LABELS[:20])
    assert model.module_.stem[0].in_channels == n_channels


def test_statistics_that_were_loaded_are_kept_in_training():
    images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    trained, loaded = ResNet(1, 2), ResNet(1, 2)
    for _ in range(3):
        trained(images)
    loaded.load_state_dict(trained.state_dict())
    before = loaded.standardise.running_mean.clone()
    loaded(torch.zeros(64, 1, 8, 8))
    torch.testing.assert_close(loaded.standardise.running_mean, 0.9 * before)
    fresh = ResNet(1, 2)
    fresh(images)
    torch.testing.assert_close(fresh.standardise.running_mean, images.mean()[None])
    fresh(torch.zeros(64, 1, 8, 8))
    torch.testing.assert_close(fresh.standardise.running_mean, 0.9 * images.mean()[None])
