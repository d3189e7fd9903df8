"""Directories of transformers that lack the tokenizer or weights."""

import pytest
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models

from sk_aft import AFTClassifier, FoundationFeatureExtractor
from tests.conftest import CONFIGS, save_encoder

TEXTS = ["my card is lost", "the rate of exchange"]
CONFIGS_WITHOUT_TOKENIZER = {
    **{kind: CONFIGS[kind] for kind in ("bert", "gpt2", "t5")},
    "llama": lambda: transformers.LlamaConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
    ),
}


def features(model, cache=None):
    return FoundationFeatureExtractor(model, cache=cache).fit_transform(TEXTS).features


@pytest.mark.parametrize("cache", ["auto", None])
@pytest.mark.parametrize("kind", CONFIGS_WITHOUT_TOKENIZER)
def test_a_directory_without_a_tokenizer_is_refused_before_any_row(kind, cache, tmp_path):
    model = transformers.AutoModel.from_config(CONFIGS_WITHOUT_TOKENIZER[kind]())
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"no tokenizer.*tokenizer\.save_pretrained") as caught:
        features(f"hf:{tmp_path}", cache)
    assert repr(str(tmp_path)) in str(caught.value)
    with pytest.raises(ValueError, match=r"no tokenizer"):
        features(transformers.AutoModel.from_pretrained(tmp_path))


def test_a_tokenizer_without_words_is_none(tmp_path):
    transformers.AutoModel.from_config(CONFIGS["bert"]()).save_pretrained(tmp_path)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    vocabulary = {name: number for number, name in enumerate(names.values())}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]")), **names
    ).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="one that knows no words"):
        features(f"hf:{tmp_path}")
    with pytest.raises(ValueError, match="one that knows no words"):
        features(f"st:{tmp_path}")
    with pytest.raises(ValueError, match="one that knows no words"):
        AFTClassifier(f"hf:{tmp_path}", beta=0, max_epochs=1).fit(TEXTS, [0, 1])


def without(directory, *names):
    """Delete weights from a checkpoint."""
    path = directory / "model.safetensors"
    weights = load_file(path)
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith(names)}
    assert len(kept) < len(weights)
    save_file(kept, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("kind", "lost", "is_used"),
    [
        ("bert", "encoder.layer.1.", True),
        ("bert", "embeddings.LayerNorm.", True),
        ("bert", "pooler.", False),
        ("gpt2", "h.2.mlp.", True),
        ("t5", "encoder.block.0.", True),
        ("t5", "decoder.", False),
    ],
)
def test_weights_that_features_depend_on_may_not_be_missing(kind, lost, is_used, tmp_path):
    save_encoder(kind, tmp_path)
    expected = features(f"hf:{tmp_path}")
    without(tmp_path, lost)
    if is_used:
        with pytest.raises(ValueError, match=r"lacks \d+ weights of its") as caught:
            features(f"hf:{tmp_path}")
        assert lost in str(caught.value)
    else:
        assert (features(f"hf:{tmp_path}") == expected).all()


def test_an_encoder_that_was_saved_without_its_decoder_is_whole(tmp_path):
    save_encoder("t5", tmp_path)
    expected = features(f"hf:{tmp_path}")
    encoder = transformers.T5EncoderModel.from_pretrained(tmp_path)
    encoder.save_pretrained(tmp_path)
    assert not any(
        name.startswith("decoder.") for name in load_file(tmp_path / "model.safetensors")
    )
    for model in (f"hf:{tmp_path}", encoder):
        assert abs(features(model) - expected).max() < 1e-5
