"""Causal language models and encoder-decoders of transformers, tiny, random and saved."""

import numpy as np
import pytest
import torch
import transformers

from sk_aft import AFTClassifier, FineTunedFeatureExtractor, FoundationFeatureExtractor
from sk_aft._data._rows import as_rows
from sk_aft.backbones import HuggingFaceBackbone, resolve_backbone
from sk_aft.store import model_digest
from tests.conftest import TEXTS, word_pieces

CPU = torch.device("cpu")
TEXTS = [*dict.fromkeys(TEXTS), "card " * 20]
SIZES = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
LLAMA = {**SIZES, "intermediate_size": 48, "num_key_value_heads": 2}
CONFIGS = {
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=100, n_embd=32, n_layer=3, n_head=4, n_positions=40
    ),
    "llama": lambda: transformers.LlamaConfig(**LLAMA),
    "qwen2": lambda: transformers.Qwen2Config(**LLAMA),
    "opt": lambda: transformers.OPTConfig(
        **SIZES, ffn_dim=48, max_position_embeddings=40, word_embed_proj_dim=16
    ),
    "bloom": lambda: transformers.BloomConfig(vocab_size=100, hidden_size=32, n_layer=3, n_head=4),
}


def save(model, directory, padding_side="left"):
    model.save_pretrained(directory)
    # Like GPT-2's, it has no token for padding; like others, it pads on the left.
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=word_pieces(adds_special_tokens=False),
        unk_token="[UNK]",
        eos_token="[SEP]",
        padding_side=padding_side,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(directory)
    return str(directory)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    made = {}

    def make(kind, padding_side="left"):
        key = kind, padding_side
        if key not in made:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                model = transformers.AutoModelForCausalLM.from_config(CONFIGS[kind]())
            made[key] = save(model, tmp_path_factory.mktemp(kind), padding_side)
        return made[key]

    return make


def hidden_states(path, text):
    """The hidden states of a text alone, (n_layers + 1) of (n_tokens, d)."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.AutoModel.from_pretrained(path).eval()
    with torch.inference_mode():
        output = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
    return [state[0].numpy() for state in output.hidden_states]


def embed(backbone, texts, batch_size=4):
    return backbone.embed(as_rows(texts), batch_size=batch_size, device=CPU)


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_texts_features_do_not_depend_on_its_batch(kind, pooling, padding_side, directory):
    path = directory(kind, padding_side)
    backbone = HuggingFaceBackbone(path, pooling=pooling)
    last = [hidden_states(path, text)[-1] for text in TEXTS]
    pool = {"mean": lambda states: states.mean(axis=0), "last": lambda states: states[-1]}[pooling]
    expected = np.stack([pool(states) for states in last])
    for batch_size in (1, 3, 64):
        np.testing.assert_allclose(embed(backbone, TEXTS, batch_size), expected, atol=1e-4)


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_width_is_known_without_loading(kind, directory):
    backbone = HuggingFaceBackbone(directory(kind))
    width = backbone.n_features_out
    assert backbone._loaded is None
    assert embed(backbone, TEXTS).shape == (6, width)


def test_many_texts_have_the_features_of_few(directory):
    """They run in ONNX Runtime if it is installed."""
    backbone = HuggingFaceBackbone(directory("llama"), pooling="last")
    expected = embed(backbone, TEXTS)
    many = embed(HuggingFaceBackbone(directory("llama"), pooling="last"), TEXTS * 200)
    np.testing.assert_allclose(many, np.tile(expected, (200, 1)), atol=1e-4)


def test_layers_before_the_last_are_means(directory):
    path = directory("gpt2")
    backbone = HuggingFaceBackbone(path, pooling="last")
    assert (backbone.n_layers, backbone.n_features_out) == (3, 32)
    states = [hidden_states(path, text) for text in TEXTS]
    layers = [
        np.stack([states_of_text[layer].mean(axis=0) for states_of_text in states])
        for layer in range(3)
    ]
    found = backbone.embed_layers(as_rows(TEXTS), (0, 1, 2, 3), batch_size=4, device=CPU)
    last = np.stack([states_of_text[-1][-1] for states_of_text in states])
    np.testing.assert_allclose(found, np.hstack([*layers, last]), atol=1e-4)


def test_an_empty_text_has_no_token_and_features_of_zero(directory):
    for pooling in ("mean", "last"):
        backbone = HuggingFaceBackbone(directory("llama"), pooling=pooling)
        alone = embed(backbone, [""])
        beside = embed(backbone, ["", TEXTS[0]])
        np.testing.assert_array_equal(alone, np.zeros((1, 32)))
        np.testing.assert_array_equal(beside[:1], alone)


def test_the_pooling_is_part_of_the_fingerprint(directory):
    path = directory("gpt2")
    prints = [HuggingFaceBackbone(path, pooling=name).fingerprint() for name in ("mean", "last")]
    assert len({model_digest(fingerprint) for fingerprint in prints}) == 2
    assert resolve_backbone(f"hf:{path}").fingerprint() == prints[0]
    with pytest.raises(ValueError, match="pooling='cls': expected 'mean' or 'last'"):
        HuggingFaceBackbone(path, pooling="cls")


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_loaded_model_with_its_head_gives_the_features_of_its_directory(kind, directory):
    path = directory(kind)
    model = transformers.AutoModelForCausalLM.from_pretrained(path)
    expected = FoundationFeatureExtractor(f"hf:{path}").fit_transform(TEXTS)
    found = FoundationFeatureExtractor(model).fit_transform(TEXTS)
    np.testing.assert_allclose(found.features, expected.features, atol=1e-4)


@pytest.mark.parametrize("head", ["AutoModel", "AutoModelForSeq2SeqLM"])
def test_of_an_encoder_decoder_the_encoder_is_used(head, tmp_path):
    config = transformers.T5Config(
        vocab_size=100, d_model=32, num_layers=3, num_heads=4, d_kv=8, d_ff=48
    )
    path = save(getattr(transformers, head).from_config(config), tmp_path)
    backbone = resolve_backbone(f"hf:{path}")
    encoder = transformers.T5EncoderModel.from_pretrained(path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    expected = []
    for text in TEXTS:
        with torch.inference_mode():
            hidden = encoder(**tokenizer(text, return_tensors="pt")).last_hidden_state
        expected.append(hidden[0].mean(dim=0).numpy())
    np.testing.assert_allclose(embed(backbone, TEXTS), np.stack(expected), atol=1e-4)
    assert (backbone.n_layers, backbone.n_features_out) == (3, 32)


def test_a_student_starts_from_a_causal_language_model(directory):
    student = AFTClassifier(f"hf:{directory('llama')}", beta=0, max_epochs=1, random_state=0)
    student.fit(TEXTS, [0, 1, 0, 1, 0, 1])
    assert set(student.predict(TEXTS)) <= {0, 1}


def test_a_causal_language_model_is_fine_tuned(directory):
    backbone = HuggingFaceBackbone(directory("llama"), pooling="last")
    extractor = FineTunedFeatureExtractor(backbone, random_state=0)
    rows = extractor.fit_transform(TEXTS * 2, [0, 1, 0, 1, 0, 1] * 2)
    assert np.isfinite(rows.features).all()
    assert np.abs(rows.features[:6] - embed(backbone, TEXTS)).max() > 1e-4
