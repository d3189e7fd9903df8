"""Tiny text encoders with random weights, saved as the hub's models are; and a hub."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tests.hub_server import TOKEN, running_hub

TEXTS = [
    "I lost my card",
    "my card was stolen yesterday",
    "what is the exchange rate of the euro",
    "the rate changed",
    "why",
] * 4
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
SIZES = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
CONFIGS = {
    "bert": lambda: transformers.BertConfig(
        **SIZES, intermediate_size=48, max_position_embeddings=40
    ),
    "distilbert": lambda: transformers.DistilBertConfig(
        vocab_size=100, dim=32, n_layers=3, n_heads=4, hidden_dim=48, max_position_embeddings=40
    ),
    "modernbert": lambda: transformers.ModernBertConfig(
        **SIZES,
        intermediate_size=48,
        **{f"{name}_token_id": 0 for name in ("pad", "bos", "eos")},
        cls_token_id=2,
        sep_token_id=3,
    ),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=100, n_embd=32, n_layer=3, n_head=4, n_positions=40
    ),
    "t5": lambda: transformers.T5Config(
        vocab_size=100, d_model=32, num_layers=3, num_heads=4, d_kv=8, d_ff=48
    ),
}


def word_pieces(adds_special_tokens):
    # Not trained: the order of a trained vocabulary differs from process to process.
    words = sorted({word for text in TEXTS for word in text.lower().split()})
    letters = sorted(set("".join(words)))
    entries = dict.fromkeys([*SPECIAL, *words, *letters, *(f"##{letter}" for letter in letters)])
    vocabulary = {entry: number for number, entry in enumerate(entries)}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if adds_special_tokens:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return tokenizer


def save_encoder(kind, directory):
    is_bert = "bert" in kind
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModel.from_config(CONFIGS[kind]())
    model.save_pretrained(directory)
    names = {"unk_token": "[UNK]"}
    if is_bert:
        names |= {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=word_pieces(adds_special_tokens=is_bert), **names
    ).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def encoder_directory(tmp_path_factory):
    """Function from a kind of encoder to a directory of transformers.

    Encoders have 3 layers of width 32. "bert-inside" is a model of sentence-transformers, which
    keeps its "bert" in a folder.
    """
    made = {}

    def make(kind):
        if kind in made:
            return made[kind]
        made[kind] = str(tmp_path_factory.mktemp(kind))
        if kind != "bert-inside":
            return save_encoder(kind, made[kind])
        save_encoder("bert", f"{made[kind]}/0_Transformer")
        prefix = "sentence_transformers.models"
        modules = [
            {"idx": 0, "name": "0", "path": "0_Transformer", "type": f"{prefix}.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{prefix}.Pooling"},
        ]
        with open(f"{made[kind]}/modules.json", "w") as file:
            json.dump(modules, file)
        return made[kind]

    return make


@pytest.fixture
def hub(tmp_path):
    """A hub on this machine; ``run(code)`` runs Python that uses it, with an empty cache.

    huggingface_hub reads the address of the hub when it is imported, hence the other process.
    """

    def run(code, *, token=TOKEN, endpoint=None, **environment):
        environment = {
            **os.environ,
            "HF_ENDPOINT": endpoint or server.url,
            "HF_HOME": str(tmp_path / "hub"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_TOKEN": token,
            "PYTHONPATH": os.pathsep.join(sys.path),
            **environment,
        }
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        return SimpleNamespace(lines=done.stdout.splitlines(), error=done.stderr)

    with running_hub() as server:
        yield SimpleNamespace(run=run, server=server)
