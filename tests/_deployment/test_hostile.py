"""Folders whose author wants the reader to fetch code, to use all memory, or to crash."""

import shutil
import socket
import time
import tracemalloc

import numpy as np
import pytest

from sk_aft import AFTClassifier
from sk_aft.serving import load
from tests._deployment.students import OTHER_TEXTS, TEXTS, small, student
from tests._deployment.test_care import both_refuse, change, change_arrays, sign

LABELS = ["card", "card", "rate", "rate"] * 10


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    student("texts")[0].save_pretrained(folder / "texts")
    student("numbers")[0].save_pretrained(folder / "numbers")
    student("texts, regressor")[0].save_pretrained(folder / "regressor")
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "saved")


def estimator_refuses(folder, message):
    with pytest.raises(ValueError, match=message):
        AFTClassifier.from_pretrained(folder)


@pytest.fixture
def addresses(monkeypatch):
    """The hosts that were asked for; there is no network."""
    asked = []

    def refuse(host, *_, **__):
        asked.append(host)
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return asked


@pytest.mark.parametrize("kind", ["bert", "modernbert", "gpt2", "t5"])
def test_encoders_of_a_folder_load_neither_code_nor_kernels(
    kind, encoder_directory, tmp_path, addresses
):
    fitted = small(module=f"hf:{encoder_directory(kind)}", max_epochs=1)
    fitted.set_params(module__n_layers=1).fit(TEXTS, LABELS)
    fitted.save_pretrained(tmp_path)
    expected = fitted.predict_proba(OTHER_TEXTS)
    entries = {
        "auto_map": {"AutoModel": "author/repository--code.Encoder"},
        "_name_or_path": "author/repository",
        "_attn_implementation": "author/kernel",
        "_attn_implementation_internal": "author/kernel",
        "attn_implementation": "author/kernel",
        "quantization_config": {"quant_method": "bitsandbytes"},
    }
    change(tmp_path, lambda c: c["network"]["arguments"]["config"].update(entries))
    loaded = AFTClassifier.from_pretrained(tmp_path)
    np.testing.assert_array_equal(loaded.predict_proba(OTHER_TEXTS), expected)
    assert addresses == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "upernet", "backbone": "author/repository"}, "type 'upernet'"),
        ({"model_type": "dpt", "use_pretrained_backbone": True}, "type 'dpt'"),
        ({"model_type": ["bert"]}, "cannot be read"),
        ({}, "type None"),
        ({"model_type": "bert", "num_hidden_layers": 10**6}, "many more layers"),
        ({"model_type": "t5", "num_decoder_layers": 10**6}, "many more layers"),
        ({"model_type": "bert", "hidden_size": 12 * 10**5}, "do not belong|many more layers"),
    ],
)
def test_encoders_that_are_refused(config, message, folder, addresses):
    arguments = {"config": config, "n_outputs": 2}
    network = {"class": "TransformerText", "arguments": arguments}
    change(folder / "texts", lambda c: c.update(network=network))
    start = time.monotonic()
    estimator_refuses(folder / "texts", message)
    assert time.monotonic() - start < 10
    assert addresses == []
