"""Models of timm as foundation models: features, layers, images, identity and errors."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

timm = pytest.importorskip("timm")

from sk_aft import AFTClassifier, FoundationFeatureExtractor  # noqa: E402
from sk_aft._data._rows import as_rows  # noqa: E402
from sk_aft.backbones import TimmBackbone, resolve_backbone  # noqa: E402
from sk_aft.store import model_digest  # noqa: E402
from tests.hub_server import Repository  # noqa: E402

CPU = torch.device("cpu")
ARCHITECTURES = ["test_resnet", "test_convnext", "test_vit", "test_efficientnet", "levit_128s"]


def save(directory, name="test_resnet", **arguments):
    """Save a model with random weights and three classes; return its spec."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=3, **arguments)
    timm.models.save_for_hf(model, str(directory), safe_serialization=True)
    return f"timm:{directory}"


@pytest.fixture(scope="module")
def spec_of(tmp_path_factory):
    """Function from the name of an architecture to the spec of a saved model."""
    made = {}

    def make(name):
        if name not in made:
            made[name] = save(tmp_path_factory.mktemp(name), name)
        return made[name]

    return make


@pytest.fixture(scope="module")
def spec(spec_of):
    return spec_of("test_resnet")


def embed(spec, images, batch_size=4):
    return resolve_backbone(spec).embed(as_rows(images), batch_size=batch_size, device=CPU)


def layers_of(backbone, layers, images):
    return backbone.embed_layers(as_rows(images), layers, batch_size=4, device=CPU)


def loaded_by_timm(spec):
    """Return the model and its transform for evaluation, both made by timm."""
    model = timm.create_model(spec.replace("timm:", "local-dir:"), pretrained=True).eval()
    config = timm.data.resolve_model_data_config(model)
    return model, timm.data.create_transform(**config, is_training=False)


@torch.inference_mode()
def features_by_timm(spec, images):
    """Return pooled features and the means of all maps, of one picture after the other."""
    model, transform = loaded_by_timm(spec)
    pooled, maps = [], []
    for image in images:
        picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
        batch = transform(picture.convert("RGB"))[None]
        last = model.forward_features(batch)
        pooled.append(model.forward_head(last, pre_logits=True)[0].numpy())
        found = model.forward_intermediates(batch, intermediates_only=True)
        maps.append([each[0].mean(dim=(1, 2)).numpy() for each in found])
    means = [np.stack(each) for each in zip(*maps, strict=True)]
    return np.stack(pooled), means


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_features_and_layers_are_those_of_timm(name, spec_of, photographs):
    spec = spec_of(name)
    pooled, means = features_by_timm(spec, photographs)
    backbone = resolve_backbone(spec)
    widths = [backbone.layer_width(layer) for layer in range(backbone.n_layers)]
    assert backbone._loaded is None
    assert backbone.n_layers == len(means) - 1
    assert widths == [mean.shape[1] for mean in means[:-1]]
    assert backbone.n_features_out == pooled.shape[1]
    features = embed(backbone, photographs)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, pooled, atol=1e-5)
    layers = (1, backbone.n_layers, 0)
    first, last, second = np.split(
        layers_of(backbone, layers, photographs),
        np.cumsum([widths[1], backbone.n_features_out]),
        axis=1,
    )
    np.testing.assert_allclose(first, means[1], atol=1e-5)
    np.testing.assert_allclose(last, pooled, atol=1e-5)
    np.testing.assert_allclose(second, means[0], atol=1e-5)
    assert not np.allclose(features[0], features[1], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "middle", "n_layers"),
    [("test_resnet", 3, 4), ("test_convnext", 2, 3), ("test_vit", 3, 5), ("levit_128s", 1, 2)],
)
def test_the_middle_layer_is_a_stage_or_block_after_two_thirds(name, middle, n_layers, spec_of):
    backbone = resolve_backbone(spec_of(name))
    assert (backbone.middle_layer, backbone.n_layers) == (middle, n_layers)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_onnx_agrees_with_pytorch(name, spec_of):
    images = np.random.default_rng(0).integers(0, 256, (304, 16, 16, 3), dtype=np.uint8)
    backbone = resolve_backbone(spec_of(name))
    layers = (backbone.middle_layer, backbone.n_layers)
    expected = layers_of(backbone, layers, images[:20])
    features = layers_of(backbone, layers, images)
    assert backbone.loaded(CPU).of_layers(layers).session is not None
    np.testing.assert_allclose(features[:20], expected, atol=1e-3)


# ---------------------------------------------------------------- images


def test_pictures_of_all_forms_are_those_of_timms_transform(spec, photographs, tmp_path):
    pictures = [
        Image.fromarray(photographs[0]).resize((301, 211)),
        Image.fromarray(photographs[1]).resize((97, 131)),
        Image.fromarray(photographs[2]).convert("L"),
        Image.fromarray(photographs[3]),
    ]
    expected, _ = features_by_timm(spec, pictures)
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / f"{number}.png")
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    buffers = [path.read_bytes() for path in paths]
    forms = [pictures, paths, list(map(str, paths)), buffers, [np.asarray(p) for p in pictures]]
    for form in forms:
        np.testing.assert_allclose(embed(spec, form), expected, atol=1e-5)


def test_floats_between_0_and_1_are_the_same_images(spec, photographs):
    expected = embed(spec, photographs)
    np.testing.assert_allclose(embed(spec, photographs / 255), expected, atol=1e-5)
    with pytest.raises(ValueError, match="Row 0: float images have to be between 0 and 1"):
        embed(spec, photographs.astype(np.float32))
    features = FoundationFeatureExtractor(spec).fit_transform(photographs.astype(np.float32))
    np.testing.assert_allclose(features.features, expected, atol=1e-5)


def test_a_model_of_one_band_reads_grey(tmp_path, photographs):
    spec = save(tmp_path, in_chans=1)
    model, transform = loaded_by_timm(spec)
    greys = [Image.fromarray(image).convert("L") for image in photographs]
    with torch.inference_mode():
        batch = torch.stack([transform(grey) for grey in greys])
        expected = model.forward_head(model.forward_features(batch), pre_logits=True)
    assert batch.shape[1] == 1
    for images in (photographs, greys):
        np.testing.assert_allclose(embed(spec, images), expected, atol=1e-5)


def test_a_model_of_one_band_that_an_older_timm_saved(tmp_path, photographs):
    """Its configuration is that of a model of three bands."""
    spec = save(tmp_path, in_chans=1)
    expected = embed(spec, photographs)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    three = {"input_size": [3, 160, 160], "mean": [0.4, 0.5, 0.6], "std": [0.5, 0.5, 0.5]}
    config["pretrained_cfg"].update(three)
    path.write_text(json.dumps(config))
    np.testing.assert_allclose(embed(spec, photographs), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["csatv2", "tresnet_m"])
def test_a_model_whose_first_convolution_reads_other_bands(name):
    if not timm.is_model(name):
        pytest.skip(f"This version of timm has no {name}.")
    known = TimmBackbone(name)._network()
    assert (known.n_bands, known.images["input_size"][0]) == (3, 3)
    assert known.n_features > 100


def test_a_vision_transformer_for_another_size_gets_images_of_it(tmp_path, photographs):
    spec = save(tmp_path, "test_vit", img_size=64, dynamic_img_size=False)
    backbone = resolve_backbone(spec)
    assert backbone.to_tensor(as_rows(photographs), [0]).shape == (1, 3, 64, 64)
    assert embed(backbone, photographs).shape == (6, 64)


def test_images_of_other_bands_are_refused(spec, photographs):
    five = np.concatenate([photographs, photographs[..., :2]], axis=3)
    with pytest.raises(ValueError, match="reads grey or RGB images, but row 0 has 5 bands"):
        FoundationFeatureExtractor(spec).fit(five)
    mixed = [photographs[0], five[1]]
    with pytest.raises(ValueError, match="reads grey or RGB images, but row 1 has 5 bands"):
        FoundationFeatureExtractor(spec).fit_transform(mixed)


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_the_batch_size_does_not_change_features(spec, photographs, batch_size):
    expected = embed(spec, photographs)
    np.testing.assert_allclose(embed(spec, photographs, batch_size), expected, atol=1e-5)


# ---------------------------------------------------------------- what it is


def test_names():
    for name, short in [
        ("resnet18.a1_in1k", "resnet18.a1_in1k"),
        ("hf-hub:somebody/some-model", "some-model"),
        ("some/directory", "directory"),
    ]:
        backbone = resolve_backbone(f"timm:{name}")
        assert type(backbone) is TimmBackbone
        assert (backbone.name_or_path, backbone.name, backbone.kind) == (name, short, "image")


def test_a_pickle_of_a_loaded_model_holds_no_weights(spec, photographs):
    backbone = resolve_backbone(spec)
    expected = embed(backbone, photographs)
    pickled = pickle.dumps(backbone)
    assert len(pickled) < 1000
    copy = pickle.loads(pickled)
    assert copy._loaded is None
    assert copy.fingerprint() == backbone.fingerprint()
    np.testing.assert_array_equal(embed(copy, photographs), expected)
    backbone.unload()
    assert backbone._loaded is None
    np.testing.assert_array_equal(embed(backbone, photographs), expected)


def test_the_fingerprint_is_that_of_weights_and_preprocessing(spec, tmp_path):
    keys = {model_digest(resolve_backbone(spec).fingerprint())}
    shutil.copytree(spec.removeprefix("timm:"), tmp_path / "same")
    keys.add(model_digest(resolve_backbone(f"timm:{tmp_path / 'same'}").fingerprint()))
    assert len(keys) == 1
    torch.manual_seed(1)
    for number, overlay in enumerate([{}, {"crop_pct": 0.5}, {"mean": (0.1, 0.2, 0.3)}]):
        torch.manual_seed(1)
        model = timm.create_model("test_resnet", num_classes=3, pretrained_cfg_overlay=overlay)
        timm.models.save_for_hf(model, str(tmp_path / str(number)), safe_serialization=True)
        backbone = resolve_backbone(f"timm:{tmp_path / str(number)}")
        keys.add(model_digest(backbone.fingerprint()))
        assert backbone._loaded is None
    assert len(keys) == 4


def test_a_second_extractor_takes_the_features_from_the_store(tmp_path, photographs):
    spec = save(tmp_path / "model")
    first = FoundationFeatureExtractor(spec, layers="auto").fit_transform(photographs)
    weights = tmp_path / "model" / "model.safetensors"
    second = FoundationFeatureExtractor(spec, layers="auto")
    np.testing.assert_array_equal(second.fit_transform(photographs).features, first.features)
    assert weights.exists()
    backbone = TimmBackbone(spec)
    again = FoundationFeatureExtractor(backbone).fit_transform(photographs).features
    np.testing.assert_array_equal(again, first.features[:, -96:])
    assert backbone._loaded is None


def test_the_licence_is_that_of_the_configuration_or_the_card(spec, tmp_path):
    assert resolve_backbone(spec).licence == "apache-2.0"
    model = timm.create_model("test_resnet", pretrained_cfg_overlay={"license": None})
    timm.models.save_for_hf(model, str(tmp_path), safe_serialization=True)
    backbone = resolve_backbone(f"timm:{tmp_path}")
    assert backbone.licence is None
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    assert backbone.licence == "mit"


# ---------------------------------------------------------------- in use


@pytest.mark.parametrize("layers", ["last", "auto", [1, -1]])
def test_a_student_learns_from_it(spec, photographs, layers):
    rng = np.random.default_rng(0)
    images = np.stack([np.roll(photographs[i % 6], rng.integers(8), axis=1) for i in range(24)])
    y = np.arange(24) % 2
    rows = FoundationFeatureExtractor(spec, layers=layers).fit_transform(images)
    widths = {"last": 96, "auto": 192 + 96}
    assert rows.features.shape == (24, widths.get(str(layers), 32 + 96))
    student = AFTClassifier(max_epochs=2, random_state=0).fit(rows, y)
    predicted = student.predict_proba(images)
    assert predicted.shape == (24, 2)
    np.testing.assert_allclose(predicted.sum(axis=1), 1, atol=1e-5)


def test_it_cannot_be_fine_tuned(spec):
    with pytest.raises(ValueError, match=r"\(TimmBackbone\) cannot be fine-tuned: expected a text"):
        resolve_backbone(spec).check_tunable()


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet81", r"model='timm:resnet81' is unknown: .* one of \['resnet18'"),
        ("no/such/place", r"model='timm:no/such/place' is unknown: .*save_for_hf"),
        ("test_resnet.mine", r"model='timm:test_resnet.mine': Invalid .*'test_resnet.r160_in1k'"),
        ("cs3darknet_s", r"'timm:cs3darknet_s': timm has no pretrained.*pretrained=True\)"),
    ],
)
def test_names_without_a_pretrained_model(name, message, photographs):
    with pytest.raises(ValueError, match=message):
        FoundationFeatureExtractor(f"timm:{name}").fit_transform(photographs)
    with pytest.raises(ValueError, match=message):
        FoundationFeatureExtractor(f"timm:{name}", cache=None).fit_transform(photographs)


def test_directories_without_a_model(tmp_path, photographs):
    extractor = FoundationFeatureExtractor(f"timm:{tmp_path}")
    with pytest.raises(ValueError, match=r"holds no model of timm .*save_for_hf\(model, dir"):
        extractor.fit_transform(photographs)
    save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"do not fit the network, or are missing \(No suitable"):
        extractor.fit_transform(photographs)
    save(tmp_path / "other", "test_vit")
    shutil.copy(tmp_path / "other" / "model.safetensors", tmp_path)
    with pytest.raises(ValueError, match=r"do not fit the network, or are missing"):
        extractor.fit_transform(photographs)


def test_a_model_without_a_vector_for_each_image(tmp_path, photographs):
    model = timm.create_model("test_resnet", num_classes=0, global_pool="")
    timm.models.save_for_hf(
        model, str(tmp_path), safe_serialization=True, model_args={"global_pool": ""}
    )
    with pytest.raises(ValueError, match=r"returns \(1, 96, 5, 5\) for one image.*global_pool='av"):
        FoundationFeatureExtractor(f"timm:{tmp_path}").fit_transform(photographs)


def test_a_model_of_other_bands(tmp_path, photographs):
    spec = save(tmp_path, in_chans=4)
    with pytest.raises(ValueError, match="reads images with 4 bands, expected 1 or 3"):
        FoundationFeatureExtractor(spec).fit_transform(photographs)


def test_a_missing_package_names_the_pip_command(spec, monkeypatch, photographs):
    monkeypatch.setitem(sys.modules, "timm", None)
    message = r"timm is needed for model='timm:NAME' .*pip install 'sk-aft\[timm\]'"
    with pytest.raises(ImportError, match=message):
        FoundationFeatureExtractor(spec).fit_transform(photographs)


PROGRAM = """
import sys
import numpy as np
import torch
from sk_aft import FoundationFeatureExtractor
from sk_aft.backbones import resolve_backbone
images = np.zeros((2, 16, 16, 3), dtype=np.uint8)
images[1] = 200
backbones = [resolve_backbone(f"timm:{name}") for name in sys.argv[1:]]
FoundationFeatureExtractor("timm:resnet18")
resolve_backbone(torch.nn.Linear(2, 2))
assert not {"timm", "torchvision"} & set(sys.modules)
for backbone in backbones:
    try:
        for cache in ("auto", None):
            extractor = FoundationFeatureExtractor(backbone, cache=cache)
            print(extractor.fit_transform(images).features.shape)
        print(backbone.fingerprint()["revision"], backbone.licence, backbone.full_name)
    except OSError as error:
        print(error)
"""


def test_nothing_is_imported_before_it_is_needed_and_missing_weights_are_an_error(tmp_path):
    """A new process, since the libraries read the environment when they are imported."""
    names = ("test_resnet", "hf-hub:somebody/some-model")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, *names],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    for name, line in zip(names, run.stdout.splitlines(), strict=True):
        assert f"weights of 'timm:{name}' cannot be loaded, and there are no features" in line
        assert "needs 'hf auth login'" in line
        assert f"timm.create_model('{name}', pretrained=True) on another and copy" in line
        assert "use model='timm:DIRECTORY'." in line


def test_a_model_of_the_hub_is_identified_by_its_commit(hub, tmp_path):
    save(tmp_path / "model")
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    files["README.md"] = b"---\nlicense: mit\n---\n"
    repository = hub.server.repositories["somebody/some-model"] = Repository(private=True)
    commit = repository.commit("main", "A model", files)
    names = ["hf-hub:somebody/some-model", "hf-hub:somebody/no-model"]
    code = f"import sys\nsys.argv[1:] = {names}\n{PROGRAM}"
    run = hub.run(code)
    expected = ["(2, 96)"] * 2 + [f"{commit} apache-2.0 somebody/some-model"]
    assert run.lines[:3] == expected, run.error
    assert "'timm:hf-hub:somebody/no-model' cannot be loaded" in run.lines[3]
    assert "(RepositoryNotFoundError: 4" in run.lines[3]
    of_the_model = [request for request in hub.server.requests if "some-model" in request]
    assert len(of_the_model) <= 8, of_the_model
    n_loaded = len(hub.server.requests)
    offline = hub.run(code, HF_HUB_OFFLINE="1")
    assert offline.lines[:3] == expected, offline.error
    assert len(hub.server.requests) == n_loaded
