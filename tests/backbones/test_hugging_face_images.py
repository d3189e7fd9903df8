"""Vision models of transformers, tiny and random, saved as the hub's models are."""

import json
import pickle
import warnings

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from sk_aft import AFTClassifier, FineTunedFeatureExtractor, FoundationFeatureExtractor
from sk_aft._data._rows import as_rows
from sk_aft.backbones import (
    HuggingFaceBackbone,
    HuggingFaceClipBackbone,
    HuggingFaceImageBackbone,
    resolve_backbone,
)
from sk_aft.store import FeatureStore, model_digest

CPU = torch.device("cpu")
VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}
DINO = {name: value for name, value in VIT.items() if name != "intermediate_size"}
STAGES = {"hidden_sizes": [8, 16, 24, 40], "depths": [1, 1, 1, 1]}
CONFIGS = {
    "vit": lambda: transformers.ViTConfig(**VIT),
    "dinov2": lambda: transformers.Dinov2Config(**DINO),
    "registers": lambda: transformers.Dinov2WithRegistersConfig(**DINO, num_register_tokens=2),
    "siglip": lambda: transformers.SiglipVisionConfig(**VIT),
    "clip": lambda: transformers.CLIPVisionConfig(**VIT),
    "convnext": lambda: transformers.ConvNextConfig(**STAGES, image_size=32),
    "resnet": lambda: transformers.ResNetConfig(**STAGES, embedding_size=8, layer_type="basic"),
    "swin": lambda: transformers.SwinConfig(
        image_size=32, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4
    ),
    "segformer": lambda: transformers.SegformerConfig(**STAGES, num_attention_heads=[1, 2, 2, 2]),
}
# What transformers itself computes: (n, d) of its output.
EXPECTED = {
    "vit": lambda output: output.last_hidden_state[:, 0],
    "dinov2": lambda output: output.pooler_output,  # the CLS token, too
    "registers": lambda output: output.last_hidden_state[:, 0],
    "siglip": lambda output: output.pooler_output,
    "clip": lambda output: output.pooler_output,
    "convnext": lambda output: output.pooler_output,
    "resnet": lambda output: output.pooler_output[:, :, 0, 0],
    "swin": lambda output: output.pooler_output,
    "segformer": lambda output: output.last_hidden_state.mean(dim=(2, 3)),
}
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 32, "width": 32},
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.5, 0.6, 0.7],
}


def save(config, directory, processor=PROCESSOR, head="AutoModel"):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, head).from_config(config)
    model.save_pretrained(directory)
    if processor is not None:
        (directory / "preprocessor_config.json").write_text(json.dumps(processor))
    return str(directory)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    made = {}

    def make(kind):
        if kind not in made:
            made[kind] = save(CONFIGS[kind](), tmp_path_factory.mktemp(kind))
        return made[kind]

    return make


def pixels_of(images):
    """What the processor does, computed here: resize, scale and normalise."""
    resized = [
        np.asarray(
            Image.fromarray(image).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
        )
        for image in images
    ]
    mean, std = (np.float32(PROCESSOR[f"image_{name}"]) for name in ("mean", "std"))
    scaled = (np.stack(resized).astype(np.float32) / 255 - mean) / std
    return torch.from_numpy(scaled).permute(0, 3, 1, 2)


def outputs(directory, images):
    model = transformers.AutoModel.from_pretrained(directory).eval()
    with torch.inference_mode():
        return model(pixel_values=pixels_of(images), output_hidden_states=True)


def embed(backbone, images, batch_size=4):
    return backbone.embed(as_rows(images), batch_size=batch_size, device=CPU)


@pytest.mark.parametrize("kind", CONFIGS)
def test_features_are_what_transformers_computes(kind, directory, photographs):
    backbone = resolve_backbone(f"hf:{directory(kind)}")
    assert type(backbone) is HuggingFaceImageBackbone
    assert backbone.kind == "image"
    width = backbone.n_features_out
    assert backbone._loaded is None
    expected = EXPECTED[kind](outputs(directory(kind), photographs)).numpy()
    features = embed(backbone, photographs)
    assert features.shape == (6, width)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=1e-4)


@pytest.mark.parametrize("kind", CONFIGS)
def test_layers_are_means_of_the_hidden_states(kind, directory, photographs):
    backbone = resolve_backbone(f"hf:{directory(kind)}")
    states = outputs(directory(kind), photographs[:2]).hidden_states
    n_before = {"vit": 1, "dinov2": 1, "registers": 3, "clip": 1}.get(kind, 0)
    assert backbone.n_layers == len(states) - 1
    layers = list(range(backbone.n_layers))
    expected = [
        state.mean(dim=(2, 3)) if state.ndim == 4 else state[:, n_before:].mean(dim=1)
        for state in states[:-1]
    ]
    assert [backbone.layer_width(layer) for layer in layers] == [e.shape[1] for e in expected]
    found = backbone.embed_layers(
        as_rows(photographs[:2]), [*layers, backbone.n_layers], batch_size=2, device=CPU
    )
    own = embed(backbone, photographs[:2])
    np.testing.assert_allclose(found, np.hstack([*map(np.asarray, expected), own]), atol=1e-4)


def test_widths_of_stages_differ(directory):
    backbone = resolve_backbone(directory("convnext"))
    assert [backbone.layer_width(layer) for layer in range(4)] == [8, 8, 16, 24]
    assert (backbone.n_layers, backbone.n_features_out) == (4, 40)


@pytest.mark.parametrize(("pooling", "first", "last"), [("cls", 0, 1), ("mean", 3, None)])
def test_the_pooling_is_chosen_and_means_leave_cls_and_registers_out(
    pooling, first, last, directory, photographs
):
    path = directory("registers")
    hidden = outputs(path, photographs).last_hidden_state
    backbone = HuggingFaceImageBackbone(path, pooling=pooling)
    expected = hidden[:, first:last].mean(dim=1).numpy()
    np.testing.assert_allclose(embed(backbone, photographs), expected, atol=1e-4)


def test_poolings_have_fingerprints_of_their_own(directory):
    path = directory("vit")
    poolings = ("auto", "cls", "mean")
    prints = [HuggingFaceImageBackbone(path, pooling=name).fingerprint() for name in poolings]
    assert len({model_digest(fingerprint) for fingerprint in prints}) == 3
    with pytest.raises(ValueError, match="pooling='max': expected one of auto, cls, mean"):
        HuggingFaceImageBackbone(path, pooling="max")


def test_a_model_without_a_cls_token_says_so(directory, photographs):
    backbone = HuggingFaceImageBackbone(directory("convnext"), pooling="cls")
    with pytest.raises(ValueError, match="ConvNextModel has no CLS token: use pooling='auto'"):
        FoundationFeatureExtractor(backbone).fit(photographs)


def test_images_of_any_encoding_have_the_same_features(directory, photographs, tmp_path):
    backbone = resolve_backbone(directory("vit"))
    expected = embed(backbone, photographs)
    paths = [str(tmp_path / f"{number}.png") for number in range(6)]
    for path, image in zip(paths, photographs, strict=True):
        Image.fromarray(image).save(path)
    floats = as_rows((photographs / 255).astype(np.float32)).in_float_range()
    np.testing.assert_allclose(embed(backbone, paths), expected, atol=1e-5)
    np.testing.assert_allclose(embed(backbone, floats), expected, atol=1e-5)
    for batch_size in (1, 64):
        np.testing.assert_allclose(embed(backbone, photographs, batch_size), expected, atol=1e-5)
    grey = photographs[..., 0]
    three = np.repeat(grey[..., None], 3, axis=3)
    np.testing.assert_allclose(embed(backbone, grey), embed(backbone, three), atol=1e-5)


def test_features_are_stored_and_found_without_loading(directory, photographs, cache):
    first = FoundationFeatureExtractor(f"hf:{directory('vit')}", cache=cache)
    features = first.fit_transform(photographs).features
    assert FeatureStore(cache).stats()["models"][0]["width"] == 64  # a middle layer, too
    backbone = HuggingFaceImageBackbone(directory("vit"))
    again = FoundationFeatureExtractor(backbone, cache=cache, layers="auto")
    rows = again.fit_transform(photographs[::-1])
    assert backbone._loaded is None
    np.testing.assert_array_equal(rows.features[::-1, 32:], features)


def test_a_pickle_holds_no_weights(directory, photographs):
    backbone = resolve_backbone(directory("vit"))
    expected = embed(backbone, photographs[:2])
    pickled = pickle.dumps(backbone)
    assert len(pickled) < 1000
    np.testing.assert_array_equal(embed(pickle.loads(pickled), photographs[:2]), expected)
    backbone.unload()
    np.testing.assert_array_equal(embed(backbone, photographs[:2]), expected)


def test_a_classifiers_directory_is_read_below_its_head(tmp_path, photographs):
    path = save(CONFIGS["vit"](), tmp_path, head="AutoModelForImageClassification")
    expected = outputs(path, photographs).last_hidden_state[:, 0].numpy()
    np.testing.assert_allclose(embed(resolve_backbone(path), photographs), expected, atol=1e-4)


def test_a_masked_autoencoder_reads_all_patches(tmp_path, photographs):
    config = transformers.ViTMAEConfig(**VIT, mask_ratio=0.75)
    backbone = resolve_backbone(save(config, tmp_path))
    model = transformers.AutoModel.from_pretrained(tmp_path, mask_ratio=0.0).eval()
    with torch.inference_mode():
        expected = model(pixel_values=pixels_of(photographs)).last_hidden_state[:, 0].numpy()
    for _ in range(2):
        np.testing.assert_allclose(embed(backbone, photographs), expected, atol=1e-4)


def test_missing_weights_are_an_error_unless_they_are_not_used(tmp_path, photographs):
    path = save(CONFIGS["vit"](), tmp_path, head="AutoModelForImageClassification")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embed(resolve_backbone(path), photographs)  # lacks the pooler
    weights = load_file(tmp_path / "model.safetensors")
    del weights["vit.layernorm.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    lacks = r"lacks 1 weights of its ViTModel, such as \['layernorm\.weight'\]"
    for cache in ("auto", None):
        with pytest.raises(ValueError, match=lacks):
            FoundationFeatureExtractor(path, cache=cache).fit_transform(photographs)


def test_the_backbone_of_texts_names_that_of_images(directory):
    path = directory("vit")
    expected = rf"is for text models.*HuggingFaceImageBackbone\('{path}'\), or 'hf:{path}'"
    with pytest.raises(ValueError, match=expected):
        HuggingFaceBackbone(path)


@pytest.mark.parametrize(
    "kind", [HuggingFaceBackbone, HuggingFaceClipBackbone, HuggingFaceImageBackbone]
)
def test_a_backbone_takes_a_name_without_prefix(kind):
    expected = rf"leave the prefix out, {kind.__name__}\('some/name'\), or give 'hf:some/name'"
    with pytest.raises(ValueError, match=expected):
        kind("hf:some/name")


def test_a_directory_of_timm_says_so(tmp_path):
    config = {"architecture": "resnet18", "num_classes": 3, "pretrained_cfg": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for spec in (str(tmp_path), f"hf:{tmp_path}"):
        with pytest.raises(ValueError, match=f"holds a model of timm.*'timm:{tmp_path}'"):
            resolve_backbone(spec)


def test_a_directory_without_an_image_processor_says_how_to_save_it(tmp_path, photographs):
    path = save(CONFIGS["vit"](), tmp_path, processor=None)
    with pytest.raises(ValueError, match=r"no image processor.*image_processor\.save_pretrained"):
        FoundationFeatureExtractor(path).fit(photographs)


def test_a_student_of_texts_does_not_start_from_a_vision_model(directory):
    student = AFTClassifier(f"hf:{directory('vit')}", beta=0, max_epochs=1)
    with pytest.raises(ValueError, match="is not an encoder of texts"):
        student.fit(["a text", "another"], [0, 1])


def test_a_vision_model_is_not_fine_tuned(directory, photographs):
    extractor = FineTunedFeatureExtractor(f"hf:{directory('vit')}")
    with pytest.raises(ValueError, match="cannot be fine-tuned: expected a text model"):
        extractor.fit(photographs, [0, 1] * 3)


@pytest.mark.parametrize("head", ["AutoModel", "AutoModelForImageClassification"])
def test_a_loaded_model_gives_the_features_of_its_directory(head, tmp_path, photographs):
    path = save(CONFIGS["dinov2"](), tmp_path, head=head)
    model = getattr(transformers, head).from_pretrained(path).train()
    extractor = FoundationFeatureExtractor(model, layers="auto")
    expected = FoundationFeatureExtractor(f"hf:{path}", layers="auto").fit_transform(photographs)
    rows = extractor.fit_transform(photographs)
    np.testing.assert_allclose(rows.features, expected.features, atol=1e-5)
    assert model.training
    copied = pickle.loads(pickle.dumps(extractor))
    np.testing.assert_array_equal(copied.transform(photographs).features, rows.features)
    before = extractor.backbones_[0].fingerprint()
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert extractor.backbones_[0].fingerprint() != before


def test_a_loaded_model_without_a_processor_says_how_to_give_it(tmp_path):
    model = transformers.ViTModel(CONFIGS["vit"]())
    with pytest.raises(ValueError, match=r"image processor of this ViTModel .*'hf:DIRECTORY'"):
        resolve_backbone(model)
    save(CONFIGS["vit"](), tmp_path, processor=None)
    with pytest.raises(ValueError, match="image processor of this ViTModel cannot be found"):
        resolve_backbone(transformers.ViTModel.from_pretrained(tmp_path))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.eye(3), "Expected image rows, got numeric"),
        ([b"no image"], "Row 0 .* is not a readable image"),
    ],
)
def test_other_rows_are_refused(rows, message, directory):
    with pytest.raises(ValueError, match=message):
        FoundationFeatureExtractor(f"hf:{directory('vit')}").fit_transform(rows)


def test_a_processor_that_needs_torchvision_names_it(tmp_path, photographs):
    """As DINOv3's does."""
    pytest.importorskip("transformers.models.dinov3_vit")
    config = transformers.DINOv3ViTConfig(**VIT, num_register_tokens=4)
    processor = {**PROCESSOR, "image_processor_type": "DINOv3ViTImageProcessorFast"}
    extractor = FoundationFeatureExtractor(f"hf:{save(config, tmp_path, processor)}")
    if transformers.utils.is_torchvision_available():
        features = extractor.fit_transform(photographs).features
        assert features.shape == (6, 32)
        return
    with pytest.raises(ImportError, match="runs with torchvision only: pip install torchvision"):
        extractor.fit(photographs)


@pytest.mark.parametrize(
    ("config", "reads"),
    [
        (transformers.Wav2Vec2Config, "input_values"),
        (transformers.WhisperConfig, "input_features"),
        (transformers.VideoMAEConfig, "pixel_values"),
        (transformers.DetrConfig, "pixel_values"),
        (transformers.SamConfig, "pixel_values"),
        (transformers.LlavaConfig, "input_ids"),
        (transformers.ClapConfig, "input_ids"),
    ],
)
def test_models_of_something_else_are_refused_before_any_row(config, reads, tmp_path):
    config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"Cannot use .*{reads}.*no rule.*expected a text model"):
        FoundationFeatureExtractor(f"hf:{tmp_path}").fit(["a text"])


def test_a_model_that_needs_code_of_the_hub_is_refused_before_any_row(tmp_path):
    auto_map = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    document = {"model_type": "somebodys-own", "auto_map": auto_map}
    (tmp_path / "config.json").write_text(json.dumps(document))
    (tmp_path / "own.py").write_text("raise RuntimeError('this was run')")
    with pytest.raises(ValueError, match=r"needs code of its repository .* never run"):
        FoundationFeatureExtractor(f"hf:{tmp_path}").fit(["a text"])


def test_an_unknown_type_is_refused_before_any_row(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "of-the-future"}')
    with pytest.raises(ValueError, match=r"Cannot use .*of-the-future"):
        FoundationFeatureExtractor(f"hf:{tmp_path}").fit(["a text"])
