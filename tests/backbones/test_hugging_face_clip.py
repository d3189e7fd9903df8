"""Models of images and texts of transformers, tiny and random, saved as the hub's models are."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from PIL import Image

from sk_aft import FoundationFeatureExtractor
from sk_aft._data._rows import as_rows
from sk_aft.backbones import HuggingFaceClipBackbone, resolve_backbone
from sk_aft.store import FeatureStore
from tests.conftest import TEXTS, word_pieces

CPU = torch.device("cpu")
TEXTS = [*dict.fromkeys(TEXTS), ""]
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
TEXT = {"vocab_size": 100, "max_position_embeddings": 40, "pad_token_id": 0, "eos_token_id": 3}
VISION = {**SIZES, "image_size": 32, "patch_size": 8}
CONFIGS = {
    "clip": lambda: transformers.CLIPConfig(
        text_config={**SIZES, "hidden_size": 16, **TEXT}, vision_config=VISION, projection_dim=24
    ),
    "siglip": lambda: transformers.SiglipConfig(
        text_config={**SIZES, **TEXT}, vision_config=VISION
    ),
    "siglip2": lambda: transformers.Siglip2Config(
        text_config={**SIZES, **TEXT},
        vision_config={**SIZES, "num_patches": 16, "patch_size": 8},
    ),
}
PROCESSORS = {
    "clip": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 32},
        "crop_size": {"height": 32, "width": 32},
    },
    "siglip": {
        "image_processor_type": "SiglipImageProcessor",
        "size": {"height": 32, "width": 32},
    },
    "siglip2": {
        "image_processor_type": "Siglip2ImageProcessor",
        "patch_size": 8,
        "max_num_patches": 16,
    },
}


def tokenizer():
    built = word_pieces(adds_special_tokens=True)
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "eos_token": "[SEP]"}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=built, model_max_length=40, **names
    )


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    made = {}

    def make(kind):
        if kind not in made:
            path = tmp_path_factory.mktemp(kind)
            with torch.random.fork_rng():
                torch.manual_seed(0)
                model = transformers.AutoModel.from_config(CONFIGS[kind]())
            model.save_pretrained(path)
            tokenizer().save_pretrained(path)
            (path / "preprocessor_config.json").write_text(json.dumps(PROCESSORS[kind]))
            made[kind] = str(path)
        return made[kind]

    return make


def of_texts(path, texts, **how):
    model = transformers.AutoModel.from_pretrained(path).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(path)(
        texts, truncation=True, return_tensors="pt", **how
    )
    tokens.pop("token_type_ids", None)
    with torch.inference_mode():
        features = model.get_text_features(**tokens)
    return np.asarray(getattr(features, "pooler_output", features))


def of_images(path, images):
    model = transformers.AutoModel.from_pretrained(path).eval()
    with_pillow = {"use_fast": False} if transformers.__version__ < "5" else {"backend": "pil"}
    processor = transformers.AutoImageProcessor.from_pretrained(path, **with_pillow)
    pixels = processor(images=[Image.fromarray(image) for image in images], return_tensors="pt")
    with torch.inference_mode():
        features = model.get_image_features(**pixels)
    return np.asarray(getattr(features, "pooler_output", features))


def embed(backbone, rows, batch_size=4):
    return backbone.embed(as_rows(rows), batch_size=batch_size, device=CPU)


@pytest.mark.parametrize("kind", CONFIGS)
def test_images_are_read_by_the_vision_part(kind, directory, photographs):
    backbone = resolve_backbone(f"hf:{directory(kind)}")
    assert type(backbone) is HuggingFaceClipBackbone
    assert backbone.kind is None
    assert backbone.n_layers is None
    expected = of_images(directory(kind), photographs)
    np.testing.assert_allclose(embed(backbone, photographs), expected, atol=1e-5)


@pytest.mark.parametrize("kind", CONFIGS)
def test_texts_are_read_by_the_text_part(kind, directory):
    backbone = resolve_backbone(f"hf:{directory(kind)}")
    padding = {"padding": "max_length", "max_length": 40} if kind != "clip" else {}
    expected = np.vstack([of_texts(directory(kind), [text], **padding) for text in TEXTS])
    for batch_size in (1, 4):
        features = embed(backbone, TEXTS, batch_size)
        np.testing.assert_allclose(features, expected, atol=1e-5)


def test_the_width_of_the_common_space_is_known(directory):
    backbone = resolve_backbone(directory("clip"))
    assert backbone.n_features_out == 24
    assert backbone._loaded is None


def test_columns_of_images_and_of_texts_share_a_model(directory, photographs, cache):
    texts = TEXTS[:5]
    path = directory("siglip")
    frame = pd.DataFrame({"photograph": list(photographs[:5]), "title": texts})
    model = {"photograph": f"hf:{path}", "title": f"hf:{path}"}
    rows = FoundationFeatureExtractor(model, cache=cache).fit_transform(frame)
    images, words = (rows.features[:, part] for part in rows.column_slices.values())
    np.testing.assert_allclose(images, of_images(path, photographs[:5]), atol=1e-5)
    padding = {"padding": "max_length", "max_length": 40}
    np.testing.assert_allclose(words, of_texts(path, texts, **padding), atol=1e-5)
    (model,) = FeatureStore(cache).stats()["models"]
    assert (model["rows"], model["width"]) == (10, 32)
    backbone = resolve_backbone(path)
    again = FoundationFeatureExtractor(backbone, cache=cache).fit_transform(texts)
    np.testing.assert_array_equal(again.features, words)
    assert backbone._loaded is None


def test_long_texts_are_counted(directory):
    extractor = FoundationFeatureExtractor(f"hf:{directory('clip')}", cache=None)
    with pytest.warns(UserWarning, match="1 of 2 texts are longer than 40 tokens"):
        extractor.fit_transform(["why", "why " * 60])


def test_numbers_are_refused_before_any_row(directory):
    with pytest.raises(ValueError, match=r"reads images or texts, but the rows are of .*'numeric'"):
        FoundationFeatureExtractor(f"hf:{directory('clip')}").fit(np.eye(3))


def test_pairs_are_refused_before_any_row(directory):
    frame = pd.DataFrame({"a": TEXTS, "b": TEXTS[::-1]})
    expected = r"reads single texts or images, .*\{'a': \.\.\., 'b': \.\.\.\}"
    with pytest.raises(ValueError, match=expected):
        FoundationFeatureExtractor({("a", "b"): f"hf:{directory('clip')}"}).fit(frame)


def test_floats_that_are_no_pixels_are_refused(directory, photographs):
    standardised = (photographs.astype(np.float32) - 100) / 50
    with pytest.raises(ValueError, match="reads pictures: uint8"):
        FoundationFeatureExtractor(f"hf:{directory('clip')}").fit(standardised)


def test_a_pickle_holds_no_weights(directory):
    backbone = resolve_backbone(directory("clip"))
    expected = embed(backbone, TEXTS)
    pickled = pickle.dumps(backbone)
    assert len(pickled) < 1000
    np.testing.assert_array_equal(embed(pickle.loads(pickled), TEXTS), expected)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_loaded_model_gives_the_features_of_its_directory(kind, directory, photographs):
    path = directory(kind)
    model = transformers.AutoModel.from_pretrained(path).train()
    extractor = FoundationFeatureExtractor(model)
    for rows in (list(photographs), TEXTS):
        expected = FoundationFeatureExtractor(f"hf:{path}").fit_transform(rows)
        found = extractor.fit_transform(rows)
        np.testing.assert_allclose(found.features, expected.features, atol=1e-5)
        copied = pickle.loads(pickle.dumps(extractor))
        np.testing.assert_array_equal(copied.transform(rows).features, found.features)
    assert model.training


def test_a_loaded_model_reads_what_it_has_a_processor_for(tmp_path, photographs):
    model = transformers.AutoModel.from_config(CONFIGS["clip"]())
    with pytest.raises(ValueError, match=r"image processor of this CLIPModel .*'hf:DIRECTORY'"):
        resolve_backbone(model)
    model.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    model = transformers.AutoModel.from_pretrained(tmp_path)
    assert FoundationFeatureExtractor(model).fit_transform(TEXTS).shape == (6, 24)
    with pytest.raises(ValueError, match="image processor of this CLIPModel cannot be found"):
        FoundationFeatureExtractor(model).fit(photographs)


def test_a_directory_reads_what_it_has_a_processor_for(tmp_path, photographs):
    model = transformers.AutoModel.from_config(CONFIGS["clip"]())
    model.save_pretrained(tmp_path)
    spec = f"hf:{tmp_path}"
    with pytest.raises(ValueError, match="has no image processor"):
        FoundationFeatureExtractor(spec).fit(photographs)
    with pytest.raises(ValueError, match="has no tokenizer"):
        FoundationFeatureExtractor(spec).fit(TEXTS)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSORS["clip"]))
    assert FoundationFeatureExtractor(spec).fit_transform(photographs).shape == (6, 24)
    with pytest.raises(ValueError, match="has no tokenizer"):
        FoundationFeatureExtractor(spec).fit(TEXTS)
    (tmp_path / "preprocessor_config.json").unlink()
    tokenizer().save_pretrained(tmp_path)
    assert FoundationFeatureExtractor(spec).fit_transform(TEXTS).shape == (6, 24)
