"""The first layers of a text encoder, and what of the checkpoint they keep."""

import copy
import json
import pickle
import shutil
import time

import numpy as np
import pytest
import torch
import transformers

from sk_aft.modules import TransformerText

# Importing ModernBERT of transformers 4.56 compiles, and so imports all of torch.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")

KINDS = ["bert", "distilbert", "modernbert", "gpt2", "t5", "bert-inside"]


def build(directory, **parameters):
    return TransformerText(directory, n_outputs=3, **parameters).eval()


def batch(*texts):
    lengths = torch.tensor([len(text) for text in texts])
    tokens = torch.zeros(len(texts), max(int(lengths.max()), 1), dtype=torch.int64)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = torch.tensor(text)
    return tokens, lengths


def reference(directory):
    """The whole encoder, as transformers loads it."""
    model = transformers.AutoModel.from_pretrained(directory, dtype=torch.float32).eval()
    return model.get_encoder() if model.config.is_encoder_decoder else model


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_the_first_of_the_checkpoint(kind, encoder_directory):
    directory = encoder_directory(kind)
    network = build(directory)
    whole = reference(directory + "/0_Transformer" * (kind == "bert-inside")).state_dict()
    ours = network.encoder.state_dict()
    for name, weight in ours.items():
        torch.testing.assert_close(weight, whole[name], rtol=0, atol=0)
    left = {name for name in whole if name not in ours}
    assert left
    assert all("pooler" in name or ".2." in name for name in left)


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_features_are_the_normalised_mean_of_a_hidden_state(n_layers, encoder_directory):
    directory = encoder_directory("bert")
    network = build(directory, n_layers=n_layers)
    tokens, lengths = batch([2, 10, 11, 3])
    with torch.no_grad():
        _, features = network(tokens, lengths)
        hidden = reference(directory)(tokens, output_hidden_states=True).hidden_states[n_layers]
    torch.testing.assert_close(features, network.norm(hidden.mean(1)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_has_the_same_outputs_alone_and_beside_longer_ones(kind, encoder_directory):
    network = build(encoder_directory(kind))
    torch.nn.init.normal_(network.head.weight)
    texts = [[], [2], [2, 10, 3], [2, 20, 21, 22, 23, 24, 25, 26, 3]]
    with torch.no_grad():
        together = network(*batch(*texts))
        for row, text in enumerate(texts):
            for output, whole in zip(network(*batch(text)), together, strict=True):
                assert torch.isfinite(output).all()
                torch.testing.assert_close(output[0], whole[row], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_protocol_of_fine_tuning(kind, encoder_directory):
    network = build(encoder_directory(kind), n_frozen_layers=1, head_lr_factor=5, layer_decay=0.9)
    assert (network.n_frozen_layers, network.head_lr_factor, network.layer_decay) == (1, 5, 0.9)
    assert len(network.layers) == 3
    of_layers = [weight for layer in network.layers for weight in layer.parameters()]
    assert sorted(map(id, of_layers)) == sorted(map(id, network.encoder.parameters()))  # no repeats
    embedding = network.encoder.get_input_embeddings().weight
    assert any(weight is embedding for weight in network.layers[0].parameters())
    new = {*network.norm.parameters(), *network.head.parameters()}
    assert {*network.parameters()} == {*of_layers, *new}


@pytest.mark.parametrize("kind", KINDS)
def test_all_weights_are_trained(kind, encoder_directory):
    network = build(encoder_directory(kind))
    torch.nn.init.normal_(network.head.weight)
    network(*batch([2, 10, 3], [2, 3]))[0].square().sum().backward()
    unused = [name for name, weight in network.named_parameters() if weight.grad is None]
    assert unused == []


def test_outputs_start_at_zero_and_dropout_is_the_checkpoints(encoder_directory):
    network = build(encoder_directory("bert"))
    inputs = batch([2, 10, 3])
    assert torch.equal(network(*inputs)[0], torch.zeros(1, 3))
    assert torch.equal(network(*inputs)[1], network(*inputs)[1])
    network.train()
    assert not torch.equal(network(*inputs)[1], network(*inputs)[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_are_the_same_network(kind, copied, encoder_directory):
    network = build(encoder_directory(kind))
    torch.nn.init.normal_(network.head.weight)
    next(network.parameters()).requires_grad_(False)
    again = copied(network)
    inputs = batch([2, 10, 3], [2, 5, 6, 7, 3])
    for ours, theirs in zip(again(*inputs), network(*inputs), strict=True):
        assert torch.equal(ours, theirs)
    assert not again.encoder.training
    ours, theirs = (dict(net.named_parameters()) for net in (again, network))
    assert list(ours) == list(theirs)
    assert [w.requires_grad for w in ours.values()] == [w.requires_grad for w in theirs.values()]
    assert not {w.data_ptr() for w in ours.values()} & {w.data_ptr() for w in theirs.values()}


def test_a_pickle_holds_no_object_of_transformers(encoder_directory):
    assert b"transformers." not in pickle.dumps(build(encoder_directory("bert")))


@pytest.mark.parametrize("n_layers", [0, 4, -1, 1.5])
def test_more_layers_than_there_are(n_layers, encoder_directory):
    message = f"n_layers={n_layers}, but the encoder has 3 layers: expected an integer from 1 to 3"
    with pytest.raises(ValueError, match=message):
        build(encoder_directory("bert"), n_layers=n_layers)


def test_a_checkpoint_that_lacks_weights(encoder_directory, tmp_path):
    """A config that promises more layers than were saved."""
    directory = tmp_path / "bert"
    shutil.copytree(encoder_directory("bert"), directory)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 5}))
    build(str(directory), n_layers=3)
    with pytest.raises(ValueError, match=r"lacks weights of its first 4 layers: .*layer\.3"):
        build(str(directory), n_layers=4)


def test_texts_that_are_longer_than_the_encoder_reads(encoder_directory):
    network = build(encoder_directory("bert"))
    assert network(*batch([5] * 40))[0].shape == (1, 3)
    with pytest.raises(ValueError, match=r"has 41 tokens, but .* reads at most 40.*max_length=40"):
        network(*batch([5] * 41))


def test_an_encoder_of_images(tmp_path):
    transformers.ViTModel(
        transformers.ViTConfig(hidden_size=8, num_hidden_layers=2, num_attention_heads=2)
    ).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"is not an encoder of texts"):
        build(str(tmp_path))


def test_a_model_of_sentence_transformers_without_transformer(encoder_directory, tmp_path):
    (tmp_path / "modules.json").write_text(
        json.dumps([{"path": "", "type": "sentence_transformers.models.StaticEmbedding"}])
    )
    with pytest.raises(ValueError, match=r"no transformer .* first module is .*StaticEmbedding"):
        build(str(tmp_path))


def test_tokens_that_the_encoder_does_not_know(encoder_directory):
    build(encoder_directory("bert"), n_tokens=100)
    with pytest.raises(ValueError, match=r"token 100, but .* knows only 100 tokens: use its own"):
        build(encoder_directory("bert"), n_tokens=101)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_loading_prints_nothing(kind, encoder_directory, capfd):
    build(encoder_directory(kind))
    build("minilm")
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""


def test_loading_minilm_is_quick():
    build("minilm")
    times = []
    for _ in range(3):
        start = time.perf_counter()
        network = build("minilm")
        times.append(time.perf_counter() - start)
    assert min(times) < 0.5
    assert len(network.layers) == 3
    assert np.isclose(sum(w.numel() for w in network.parameters()), 15.47e6, rtol=1e-3)
