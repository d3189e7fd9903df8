"""What names of networks stand for."""

import json
import os
import subprocess
import sys
from functools import partial
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from sk_aft import AFTClassifier
from sk_aft._data._texts import TRUNCATION
from sk_aft.modules import EfficientNetLite, ResNet, TransformerText
from sk_aft.modules._named import named_network
from sk_aft.preprocessing import ImageResizer
from tests.conftest import TEXTS, save_encoder


@pytest.mark.parametrize("form", ["{}", "hf:{}", "st:{}"])
def test_a_directory_is_an_encoder_with_its_tokenizer(form, encoder_directory):
    directory = encoder_directory("bert")
    named = named_network(form.format(directory), {})
    assert named.kind == "text"
    network = named.build(n_outputs=2, n_layers=1)
    assert isinstance(network, TransformerText)
    assert len(network.layers) == 2
    ids = named.make_preprocessor().fit(TEXTS).transform(TEXTS[:5])
    expected = AutoTokenizer.from_pretrained(directory)(TEXTS[:5])["input_ids"]
    assert [row.tolist() for row in ids] == expected


def test_texts_are_read_as_far_as_the_encoder_can(encoder_directory):
    named = named_network(encoder_directory("bert"), {})  # with 40 positions
    long = ["why " * 100]
    with pytest.warns(UserWarning, match=TRUNCATION):
        (ids,) = named.make_preprocessor().fit(TEXTS).transform(long)
    assert len(ids) == 40
    with pytest.warns(UserWarning, match=TRUNCATION):
        (ids,) = named.make_preprocessor(max_length=7).fit(TEXTS).transform(long)
    assert len(ids) == 7
    for wrong in (0, 41):
        with pytest.raises(
            ValueError, match=rf"max_length={wrong}, but .* reads at most 40 tokens"
        ):
            named.make_preprocessor(max_length=wrong)
    minilm = named_network("minilm", {})  # with 512 positions
    assert minilm.make_preprocessor().max_length == 256
    assert minilm.make_preprocessor(max_length=512).max_length == 512


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("minlm", "Did you mean 'minilm'"),
        ("/no/such/place", "write 'st:/no/such/place'"),
        ("st", "Known: 'minilm'"),
        ("", "Known: 'minilm'"),
    ],
)
def test_unknown_names(name, hint):
    message = (
        rf"module='{name}' is unknown: expected 'auto'; for texts 'minilm', 'st:NAME'.*for images "
        rf"'effnet-lite0'.* {hint}"
    )
    with pytest.raises(ValueError, match=message):
        named_network(name, {})


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_the_name_of_a_model_of_images(variant):
    named = named_network(f"effnet-lite{variant}", {"image_size": 40})
    assert named.kind == "image"
    network = named.build(n_outputs=2, n_blocks=1)
    assert isinstance(network, EfficientNetLite)
    expected = EfficientNetLite(2, n_blocks=1, variant=variant)
    torch.testing.assert_close(network.body.state_dict(), expected.body.state_dict())
    assert named.make_preprocessor().max_size == 40
    assert named.make_preprocessor(max_size=20).max_size == 20
    by_default = named_network(f"effnet-lite{variant}", {}).make_preprocessor()
    assert by_default.get_params() == ImageResizer().get_params()


def test_auto_and_networks_are_no_names():
    for module in ("auto", ResNet, ResNet(1, 2), lambda n_outputs: None):
        assert named_network(module, {}) is None


def test_a_tokenizer_that_runs_in_python_only(encoder_directory, tmp_path):
    """CANINE's tokens are the characters, and its tokenizer is no one of the library."""
    import transformers

    transformers.CanineTokenizer().save_pretrained(tmp_path)
    transformers.CanineConfig(hidden_size=8, num_attention_heads=2).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"runs only in Python \(CanineTokenizer\).*preprocessor"):
        named_network(str(tmp_path), {}).make_preprocessor()


@pytest.mark.slow
def test_names_of_the_hub_are_read_from_its_cache(tmp_path):
    """A model of transformers, and one of sentence-transformers that keeps it in a folder."""

    def snapshot(name):
        repository = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(40 * "a")
        return repository / "snapshots" / (40 * "a")

    save_encoder("bert", snapshot("someone/plain"))
    inside = snapshot("sentence-transformers/inside")
    save_encoder("bert", inside / "0_Transformer")
    module = {"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}
    (inside / "modules.json").write_text(json.dumps([module]))
    program = """
from sk_aft import AFTClassifier
for name in ("hf:someone/plain", "st:someone/plain", "st:inside"):
    model = AFTClassifier(name, beta=0, lr=1e-3, max_epochs=1)
    model.fit(["a card", "the rate"] * 4, [0, 1] * 4)
    assert len(model.module_.layers) == 3
"""
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, **offline})


@pytest.mark.skipif(find_spec("timm") is not None, reason="timm is installed")
def test_a_model_of_timm_without_timm():
    with pytest.raises(ImportError, match=r"timm is needed for .*pip install 'sk-aft\[timm\]'"):
        named_network("timm:resnet18", {})


@pytest.mark.parametrize(
    "module",
    [
        EfficientNetLite(2, image_size=48, n_blocks=1),
        partial(EfficientNetLite, image_size=48),
        EfficientNetLite,
    ],
    ids=["instance", "partial", "class"],
)
def test_networks_of_this_package_have_the_resizer_of_their_size(module):
    parameters = {"image_size": 48} if module is EfficientNetLite else {}
    named = named_network(module, parameters)
    assert (named.kind, named.name) == ("image", "EfficientNetLite")
    images = np.zeros((2, 60, 60), np.uint8)
    assert named.make_preprocessor().fit(images).size_ == (48, 48)
    assert named.make_preprocessor(size=10).fit(images).size_ == (10, 10)


def test_the_image_size_of_a_users_network_is_its_own_affair():
    class Network(ResNet):
        def __init__(self, n_channels, n_outputs, image_size):
            super().__init__(n_channels, n_outputs)

    model = AFTClassifier(Network, module__image_size=None, beta=0, max_epochs=1)
    model.fit(np.zeros((4, 10, 10), np.uint8), [0, 1, 0, 1])
    assert model.preprocessor_.size_ == (10, 10)


def test_a_name_is_a_variant():
    with pytest.raises(ValueError, match=r"module='effnet-lite1' is a variant already"):
        named_network("effnet-lite1", {"variant": 0})
    with pytest.raises(ValueError, match="variant has to be 0, 1 or 2, got 5"):
        EfficientNetLite(2, variant=5)
