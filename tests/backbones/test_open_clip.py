"""Models of open_clip: tiny towers with random weights, saved to disk."""

import json
import os
import pickle
import shutil
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft._data._rows import as_rows
from sk_aft.backbones import OpenClipBackbone, resolve_backbone
from sk_aft.store import model_digest
from tests.hub_server import Repository

open_clip = pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers")

CPU = torch.device("cpu")
TEXTS = ["a photo of a card", "", "a dog!", "two cats and a dog on a red sofa in the sun"]
LONG = "a very long text about dogs " * 10
VISION = {"image_size": 32, "layers": 3, "width": 24, "head_width": 6, "patch_size": 8}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2}
CONFIGURATIONS = {
    "Tiny-A": {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT},
    "Tiny-Custom": {
        "embed_dim": 16,
        "custom_text": True,
        "vision_cfg": {**VISION, "pool_type": "avg"},
        "text_cfg": {**TEXT, "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
    },
    "Tiny-ResNet": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8},
        "text_cfg": TEXT,
    },
    "Tiny-Timm": {
        "embed_dim": 16,
        "vision_cfg": {
            "timm_model_name": "test_vit",
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 160,
        },
        "text_cfg": TEXT,
    },
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Function from the name of a model to a file of its random weights."""
    folder = tmp_path_factory.mktemp("open_clip")
    for name, configuration in CONFIGURATIONS.items():
        (folder / f"{name}.json").write_text(json.dumps(configuration))
    open_clip.add_model_config(folder)

    def make(name):
        path = folder / f"{name}.safetensors"
        if not path.exists():
            with torch.random.fork_rng():
                torch.manual_seed(0)
                save_file(open_clip.create_model(name).state_dict(), path)
        return str(path)

    return make


@pytest.fixture(scope="module")
def tiny(checkpoint):
    return OpenClipBackbone(f"Tiny-A/{checkpoint('Tiny-A')}")


@pytest.fixture(scope="module")
def directory(checkpoint, tmp_path_factory):
    """As open_clip's own ``save_for_hf`` lays it out."""
    folder = tmp_path_factory.mktemp("local") / "tiny-clip"
    folder.mkdir()
    settings = {"model_cfg": CONFIGURATIONS["Tiny-A"], "preprocess_cfg": {"resize_mode": "squash"}}
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    (folder / "README.md").write_text("---\nlicense: mit\n---\nA model.\n")
    shutil.copy(checkpoint("Tiny-A"), folder / "open_clip_model.safetensors")
    return folder


def embed(backbone, rows, batch_size=3):
    return backbone.embed(as_rows(rows), batch_size=batch_size, device=CPU)


def reference(name, path):
    """The model and its transform, by open_clip alone."""
    model, transform = open_clip.create_model_from_pretrained(name, path)
    return model.eval(), transform


@torch.no_grad()
def of_images(model, transform, images):
    return torch.cat([model.encode_image(transform(Image.fromarray(i))[None]) for i in images])


@torch.no_grad()
def of_texts(model, tokenizer, texts):
    return torch.cat([model.encode_text(tokenizer([text])) for text in texts])


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_features_are_what_open_clip_computes(name, checkpoint, photographs):
    backbone = resolve_backbone(f"open_clip:{name}/{checkpoint(name)}")
    assert type(backbone) is OpenClipBackbone
    assert (backbone.name, backbone.kind, backbone.n_features_out) == (name, None, 16)
    model, transform = reference(name, checkpoint(name))
    images, texts = embed(backbone, photographs), embed(backbone, TEXTS)
    assert images.dtype == texts.dtype == np.float32
    np.testing.assert_allclose(images, of_images(model, transform, photographs), atol=1e-5)
    tokenizer = open_clip.get_tokenizer(name)
    np.testing.assert_allclose(texts, of_texts(model, tokenizer, TEXTS), atol=1e-5)


@pytest.mark.parametrize("name", ["Tiny-A", "Tiny-Custom", "Tiny-Timm"])
def test_features_before_the_projection_give_those_after_it(name, checkpoint, photographs):
    path = checkpoint(name)
    before = OpenClipBackbone(f"{name}/{path}", projected=False)
    after = OpenClipBackbone(f"{name}/{path}")
    assert before.n_features_out is None
    weights = open_clip.create_model(name, path).state_dict()
    text = weights.get("text_projection")
    if text is None:
        text = weights.get("text.text_projection.weight", torch.empty(0)).T
    bias = weights.get("text.text_projection.bias", torch.zeros(16)).numpy()
    texts = embed(before, TEXTS)
    assert texts.shape == (4, 32)
    np.testing.assert_allclose(texts @ text.numpy() + bias, embed(after, TEXTS), atol=1e-5)
    image = weights.get("visual.proj")
    if image is None:
        image = weights["visual.head.proj.weight"].T
    images = embed(before, photographs) @ image.numpy()
    np.testing.assert_allclose(images, embed(after, photographs), atol=1e-5)


def test_features_that_cannot_be_separated_are_refused(checkpoint, photographs):
    backbone = OpenClipBackbone(f"Tiny-ResNet/{checkpoint('Tiny-ResNet')}", projected=False)
    with pytest.raises(ValueError, match=r"pools and projects images in one layer.*projected=True"):
        FoundationFeatureExtractor(backbone).fit(photographs)
    assert embed(backbone, TEXTS).shape == (4, 32)


# ---------------------------------------------------------------- extractor and store


def test_a_store_keeps_images_and_texts_apart(tiny, photographs, cache):
    """The towers have several widths before the projection."""
    spec = f"{tiny.model_name}/{tiny.pretrained}"
    backbone = OpenClipBackbone(spec, projected=False)
    images = FoundationFeatureExtractor(backbone, cache=cache).fit_transform(photographs)
    texts = FoundationFeatureExtractor(backbone, cache=cache).fit_transform(TEXTS)
    assert (images.shape, texts.shape) == ((6, 24), (4, 32))
    again = OpenClipBackbone(spec, projected=False)
    for rows, features in ((photographs, images), (TEXTS, texts)):
        found = FoundationFeatureExtractor(again, cache=cache).fit_transform(rows)
        np.testing.assert_array_equal(found, features)
    assert again._loaded is None  # nothing had to be run


def test_strings_that_end_like_image_files_are_paths(tiny, photographs, tmp_path):
    paths = [str(tmp_path / f"{number}.png") for number in range(2)]
    for path, image in zip(paths, photographs, strict=False):
        Image.fromarray(image).save(path)
    rows = FoundationFeatureExtractor(tiny).fit_transform(paths)
    np.testing.assert_allclose(rows, embed(tiny, photographs[:2]), atol=1e-5)


def test_columns_of_a_frame_are_read_by_their_towers(tiny, photographs):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": TEXTS, "picture": list(photographs[:4])})
    extractor = FoundationFeatureExtractor({"text": tiny, "picture": tiny})
    features = np.asarray(extractor.fit_transform(frame))
    expected = np.hstack([embed(tiny, TEXTS), embed(tiny, photographs[:4])])
    np.testing.assert_allclose(features, expected, atol=1e-5)


def test_a_student_learns_from_a_tower(tiny):
    rows = FoundationFeatureExtractor(tiny).fit_transform(TEXTS * 3)
    student = AFTClassifier(max_epochs=1, random_state=0).fit(rows, [0, 1, 0, 1] * 3)
    assert student.predict(TEXTS).shape == (4,)


def test_numbers_are_refused(tiny):
    with pytest.raises(ValueError, match="reads images or texts, but the rows are of kind numeric"):
        FoundationFeatureExtractor(tiny).fit(np.zeros((3, 4)))


def test_images_that_are_no_pictures_are_refused(tiny, photographs):
    with pytest.raises(ValueError, match="reads grey or RGB images, but row 0 has 7 bands"):
        FoundationFeatureExtractor(tiny).fit(np.zeros((2, 32, 32, 7), dtype=np.uint8))
    later = [photographs[0], np.zeros((32, 32, 7), dtype=np.uint8)]
    with pytest.raises(ValueError, match="row 1 has 7 bands"):
        FoundationFeatureExtractor(tiny).fit_transform(later)


def test_grey_images_and_floats_are_read(tiny, photographs):
    grey = photographs[..., 1]
    expected = embed(tiny, np.repeat(grey[..., None], 3, axis=3))
    np.testing.assert_allclose(embed(tiny, grey), expected, atol=1e-5)
    rows = FoundationFeatureExtractor(tiny).fit_transform(photographs / 255)
    np.testing.assert_allclose(rows, embed(tiny, photographs), atol=1e-5)


def test_truncated_texts_are_counted(tiny):
    exact = " ".join(["dog"] * 14)  # 16 tokens with those of the start and the end
    with pytest.warns(UserWarning, match="1 of 6 texts are longer than 16 tokens"):
        FoundationFeatureExtractor(tiny).fit_transform([*TEXTS, exact, LONG])


# ---------------------------------------------------------------- layers


@torch.no_grad()
def image_layers(model, pixels):
    """The mean over the tokens of what each block reads."""
    hidden = model.visual._embeds(pixels)
    means = [hidden.mean(dim=1)]
    for block in model.visual.transformer.resblocks:
        hidden = block(hidden)
        means.append(hidden.mean(dim=1))
    return means


@torch.no_grad()
def text_layers(model, tokens):
    """The mean over one text's own tokens of what each block reads."""
    length = int((tokens[0] == 49407).nonzero()[0]) + 1
    hidden = model.token_embedding(tokens) + model.positional_embedding
    means = [hidden[:, :length].mean(dim=1)]
    for block in model.transformer.resblocks:
        hidden = block(hidden, attn_mask=model.attn_mask)
        means.append(hidden[:, :length].mean(dim=1))
    return means


def test_layers_of_a_tower_are_means_over_its_tokens(tiny, photographs):
    model, transform = reference(tiny.model_name, tiny.pretrained)
    image, text = tiny.of_kind("image"), tiny.of_kind("text")
    assert (image.n_layers, image.layer_width(1), image.kind) == (3, 24, "image")
    assert (text.n_layers, text.layer_width(1), text.kind) == (2, 32, "text")
    pixels = torch.stack([transform(Image.fromarray(picture)) for picture in photographs])
    expected = [*image_layers(model, pixels)[:3], embed(tiny, photographs)]
    found = image.embed_layers(as_rows(photographs), (0, 1, 2, 3), batch_size=4, device=CPU)
    np.testing.assert_allclose(found, np.hstack(expected), atol=1e-5)
    found = text.embed_layers(as_rows(TEXTS), (0, 1, 2), batch_size=3, device=CPU)
    tokenizer = open_clip.get_tokenizer(tiny.model_name)
    each = [text_layers(model, tokenizer([words]))[:2] for words in TEXTS]
    inner = np.vstack([torch.cat(layers, dim=1) for layers in each])
    np.testing.assert_allclose(found, np.hstack([inner, embed(tiny, TEXTS)]), atol=1e-5)


def test_layers_of_a_tower_are_features(tiny, photographs):
    tower = tiny.of_kind("image")
    extractor = FoundationFeatureExtractor(tower, layers="auto").fit(photographs)
    assert list(extractor.feature_slices_) == ["Tiny-A_layer2", "Tiny-A"]
    assert extractor.n_features_out_ == 24 + 16
    rows = extractor.transform(photographs)
    np.testing.assert_allclose(np.asarray(rows)[:, 24:], embed(tiny, photographs), atol=1e-5)


def test_layers_of_other_poolings_leave_the_padding_out(checkpoint):
    backbone = OpenClipBackbone(f"Tiny-Custom/{checkpoint('Tiny-Custom')}")
    model, _ = reference("Tiny-Custom", checkpoint("Tiny-Custom"))
    tokens = open_clip.get_tokenizer("Tiny-Custom")(TEXTS)
    with torch.no_grad():
        read = model.text.token_embedding(tokens) + model.text.positional_embedding
    expected = np.stack(
        [each[ids != 0].mean(dim=0) for each, ids in zip(read, tokens, strict=True)]
    )
    tower = backbone.of_kind("text")
    found = tower.embed_layers(as_rows(TEXTS), (0, 2), batch_size=4, device=CPU)
    np.testing.assert_allclose(found[:, :32], expected, atol=1e-5)


def test_other_towers_have_no_layers(checkpoint):
    for name in ("Tiny-ResNet", "Tiny-Timm"):
        tower = OpenClipBackbone(f"{name}/{checkpoint(name)}").of_kind("image")
        assert tower.n_layers is None


@pytest.mark.parametrize("layers", [(), (0, 1, 2)])
@pytest.mark.parametrize("kind", ["image", "text"])
def test_many_rows_run_in_onnx_and_have_the_same_features(kind, layers, tiny, photographs):
    pytest.importorskip("onnxruntime")
    rows = as_rows(photographs if kind == "image" else TEXTS)
    backbone = OpenClipBackbone(f"{tiny.model_name}/{tiny.pretrained}")
    tower = backbone.of_kind(kind)
    expected = tower.run(rows, layers, 4, CPU)
    network = getattr(backbone.loaded(CPU), kind).of_layers(layers)
    network._n_rows_before_export = 0
    features = tower.run(rows, layers, 4, CPU)
    assert network.session is not None
    np.testing.assert_allclose(features, expected, atol=1e-3)


# ---------------------------------------------------------------- description


def test_a_pickle_of_a_loaded_model_holds_the_description(tiny, photographs):
    features = embed(tiny, photographs)
    pickled = pickle.dumps(tiny)
    assert len(pickled) < 2000
    copy = pickle.loads(pickled)
    assert copy._loaded is None
    assert copy.fingerprint() == tiny.fingerprint()
    np.testing.assert_array_equal(embed(copy, photographs), features)
    copy.of_kind("image").unload()
    assert copy._loaded is None


def test_loading_leaves_the_random_numbers_alone(tiny):
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    OpenClipBackbone(f"{tiny.model_name}/{tiny.pretrained}").prepare(CPU)
    assert torch.equal(torch.rand(2), expected)


def test_fingerprints_tell_weights_towers_and_settings_apart(tiny, checkpoint, directory, tmp_path):
    spec = f"{tiny.model_name}/{tiny.pretrained}"
    weights = bytearray(Path(tiny.pretrained).read_bytes())
    weights[-1] ^= 1
    (tmp_path / "changed.safetensors").write_bytes(weights)
    backbones = [
        tiny.of_kind("image"),
        tiny.of_kind("text"),
        OpenClipBackbone(spec, projected=False).of_kind("text"),
        OpenClipBackbone(f"Tiny-A/{tmp_path}/changed.safetensors").of_kind("text"),
        OpenClipBackbone(f"Tiny-Custom/{checkpoint('Tiny-Custom')}").of_kind("text"),
        OpenClipBackbone(f"local-dir:{directory}").of_kind("text"),
    ]
    digests = {model_digest(backbone.fingerprint()) for backbone in backbones}
    assert len(digests) == 6
    json.dumps(tiny.fingerprint())


def test_a_directory_has_its_own_configuration_and_licence(tiny, directory, photographs):
    backbone = resolve_backbone(f"open_clip:local-dir:{directory}")
    assert (backbone.name, backbone.licence) == ("tiny-clip", "mit")
    assert tiny.licence is None
    oblong = photographs[:, :40]
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{directory}")
    features = embed(backbone, oblong)
    np.testing.assert_allclose(features, of_images(model, transform, oblong), atol=1e-5)
    assert not np.allclose(features, embed(tiny, oblong), atol=1e-2)  # which crops them


def test_a_checkpoint_of_torch_is_read_without_its_code(tiny, tmp_path):
    model, _ = reference(tiny.model_name, tiny.pretrained)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    backbone = OpenClipBackbone(f"Tiny-A/{tmp_path}/weights.pt")
    np.testing.assert_allclose(embed(backbone, TEXTS), embed(tiny, TEXTS), atol=1e-6)
    torch.save({"state_dict": model}, tmp_path / "pickle.pt")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        OpenClipBackbone(f"Tiny-A/{tmp_path}/pickle.pt").prepare(CPU)


class Spoilt:
    """Pickles to what only a reader of tensors fails to read, by a TypeError."""

    def __reduce__(self):
        return OrderedDict, (), (None, {})


class Code:
    def __init__(self, directory):
        self.directory = str(directory)

    def __reduce__(self):
        return os.mkdir, (self.directory,)


@pytest.mark.parametrize("default", [None, "1"])
def test_a_checkpoint_that_fails_as_tensors_is_not_read_as_code(default, tmp_path, monkeypatch):
    """The second case is the default of torch before 2.6."""
    if default is not None:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", default)
    torch.save({"weights": Spoilt(), "code": Code(tmp_path / "was_run")}, tmp_path / "spoilt.pt")
    with pytest.raises((TypeError, pickle.UnpicklingError)):
        OpenClipBackbone(f"Tiny-A/{tmp_path}/spoilt.pt").prepare(CPU)
    assert not (tmp_path / "was_run").exists()
    assert os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD") == default
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


# ---------------------------------------------------------------- code of a repository


def with_texts(directory, folder, **settings):
    """A copy of a directory, whose configuration of texts has more settings."""
    shutil.copytree(directory, folder)
    document = json.loads((folder / "open_clip_config.json").read_text())
    document["model_cfg"]["text_cfg"] |= settings
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    return OpenClipBackbone(f"local-dir:{folder}")


def write_code(folder):
    """Code that leaves a directory behind if it is run; return that directory."""
    was_run = folder / "was_run"
    code = f"import os\nos.mkdir({str(was_run)!r})\nclass Own: pass\n"
    (folder / "own.py").write_text(code)
    return was_run


def write_bert(folder):
    """A tiny text model of transformers and its tokenizer."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog"]
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=7, intermediate_size=32, **sizes)
    config.save_pretrained(folder)
    return {"hf_model_name": str(folder), "hf_tokenizer_name": "bert", "hf_proj_type": "mlp"}


def test_a_text_tower_and_tokenizer_of_transformers_are_read(directory, tmp_path):
    settings = write_bert(tmp_path / "bert")
    kwargs = {"clean": "lower", "strip_sep_token": True}
    backbone = with_texts(directory, tmp_path / "clip", **settings, tokenizer_kwargs=kwargs)
    for file in (tmp_path / "bert").iterdir():
        shutil.copy(file, tmp_path / "clip")
    (tmp_path / "clip" / "open_clip_model.safetensors").unlink()
    name = backbone.model_name
    model = open_clip.create_model(name, load_weights=False, pretrained_text=False)
    save_file(model.state_dict(), tmp_path / "clip" / "open_clip_model.safetensors")
    expected = of_texts(model.eval(), open_clip.get_tokenizer(name), TEXTS)
    np.testing.assert_allclose(embed(backbone, TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            "trust_remote_code",
            "tokenizer_kwargs has 'trust_remote_code': it needs code .* never run",
        ),
        (
            "tokenizer_file",
            r"has 'tokenizer_file', .*code.*expected some of \['additional.*function",
        ),
    ],
)
def test_settings_of_a_tokenizer_that_may_run_code_are_refused(key, message, directory, tmp_path):
    settings = {"hf_tokenizer_name": "any", "tokenizer_kwargs": {"clean": "lower", key: True}}
    backbone = with_texts(directory, tmp_path / "clip", **settings)
    was_run = write_code(tmp_path / "clip")
    own = {"auto_map": {"AutoTokenizer": ["own.Own", None]}, "tokenizer_class": "Own"}
    (tmp_path / "clip" / "tokenizer_config.json").write_text(json.dumps(own))
    with pytest.raises(ValueError, match=message):
        FoundationFeatureExtractor(backbone).fit(TEXTS)
    assert not was_run.exists()


def answer_yes(monkeypatch):
    """Somebody at the keyboard who agrees to everything that transformers asks."""
    monkeypatch.setattr("builtins.input", lambda _: "y")


def test_a_tokenizer_that_needs_code_is_refused_without_a_question(
    directory, tmp_path, monkeypatch
):
    answer_yes(monkeypatch)
    backbone = with_texts(directory, tmp_path / "clip", hf_tokenizer_name="any")
    was_run = write_code(tmp_path / "clip")
    own = {"auto_map": {"AutoTokenizer": ["own.Own", None]}, "tokenizer_class": "Own"}
    (tmp_path / "clip" / "tokenizer_config.json").write_text(json.dumps(own))
    with pytest.raises(ValueError, match=r"'local-dir:.*needs code of its repository .* never run"):
        backbone.prepare(CPU)
    assert not was_run.exists()


def test_a_text_tower_that_needs_code_is_refused_without_a_question(
    directory, tmp_path, monkeypatch
):
    answer_yes(monkeypatch)
    (tmp_path / "own").mkdir()
    was_run = write_code(tmp_path / "own")
    own = {"model_type": "somebodys-own", "auto_map": {"AutoConfig": "own.Own"}}
    (tmp_path / "own" / "config.json").write_text(json.dumps(own))
    backbone = with_texts(directory, tmp_path / "clip", hf_model_name=str(tmp_path / "own"))
    with pytest.raises(ValueError, match=r"'local-dir:.*needs code of its repository .* never run"):
        backbone.prepare(CPU)
    assert not was_run.exists()


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit-b32/openai", "open_clip has no model 'vit-b32'. Did you mean .*'ViT-B-32'"),
        ("ViT-B-32/laion2b", "'laion2b' is neither a file nor a tag.* Did you mean 'laion2b_"),
        ("ViT-B-32//no/weights.pt", "'/no/weights.pt' is neither a file nor a tag of 'ViT-B-32'"),
        ("Tiny-A/weights.pt", "'weights.pt' is not a file, and open_clip has no weights"),
        ("local-dir:/nowhere", "There is no '/nowhere/open_clip_config.json'"),
    ],
)
def test_what_does_not_exist_is_said_before_anything_is_loaded(name, message, checkpoint):
    with pytest.raises(ValueError, match=message):
        FoundationFeatureExtractor(f"open_clip:{name}").fit(TEXTS)


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-32/", "/openai"])
def test_a_name_without_weights_says_what_is_expected(name):
    with pytest.raises(ValueError, match="expected open_clip:NAME/PRETRAINED, such as"):
        resolve_backbone(f"open_clip:{name}")


def test_a_missing_package_names_the_pip_command(monkeypatch):
    backbone = resolve_backbone("open_clip:ViT-B-32/openai")
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ImportError, match=r"open_clip is needed .*pip install 'sk-aft\[open-clip"):
        FoundationFeatureExtractor(backbone).fit(TEXTS)


# ---------------------------------------------------------------- hub


TAG = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
OF_HUB = """
from sk_aft import FoundationFeatureExtractor
from sk_aft.backbones import OpenClipBackbone
extractor = FoundationFeatureExtractor("open_clip:hf-hub:ann/tiny-clip", cache=None)
print(extractor.fit_transform(["a dog"]).shape)
tagged = OpenClipBackbone("ViT-B-32/laion2b_s34b_b79k")
for backbone in (extractor.backbones_[0], tagged):
    print(backbone.fingerprint()["name"], backbone.fingerprint()["revision"], backbone.licence)
try:
    OpenClipBackbone("hf-hub:ann/nothing").fingerprint()
except OSError as error:
    print(error)
"""


def test_models_of_the_hub_are_identified_by_their_commits(hub, directory):
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    commits = []
    for name, content in (("ann/tiny-clip", files), (TAG, {"README.md": files["README.md"]})):
        repository = hub.server.repositories[name] = Repository()
        commits.append(repository.commit("main", "first", content))
    expected = ["(1, 16)", f"ann/tiny-clip {commits[0]} mit", f"{TAG} {commits[1]} mit"]
    for environment in ({}, {"HF_HUB_OFFLINE": "1"}):
        done = hub.run(OF_HUB, **environment)
        assert done.lines[:3] == expected, done.error
        assert "Cannot find the foundation model 'ann/nothing'" in done.lines[3]
