import time

import pytest

from sk_aft import FoundationFeatureExtractor
from tests.hub_server import Repository


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize(
    "spec",
    ["st:sk-aft/no-such-model", "hf:sk-aft/no-such-model", "st:no-such-model", "hf:/no/such/place"],
)
@pytest.mark.parametrize("cache", ["auto", None])
def test_a_name_that_is_nowhere_is_an_error_at_once(spec, cache, offline, monkeypatch):
    """Whether there is a network or not."""
    if offline:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    start = time.perf_counter()
    with pytest.raises(OSError, match=f"Cannot find .*{spec[3:]}.*Check the spelling") as caught:
        FoundationFeatureExtractor(spec, cache=cache).fit_transform(["a text"])
    assert time.perf_counter() - start < 10
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("prefix", ["hf", "st"])
def test_a_gated_model_says_how_to_get_it(prefix, hub):
    repository = hub.server.repositories["ann/gated"] = Repository(gated=True)
    repository.commit("main", "add", {"config.json": b'{"model_type": "bert"}'})
    done = hub.run(
        "from sk_aft import FoundationFeatureExtractor\n"
        f"FoundationFeatureExtractor('{prefix}:ann/gated').fit(['a text'])"
    )
    last = done.error.splitlines()[-1]
    assert last.startswith("OSError: The foundation model 'ann/gated' is gated: accept its licence")
    assert "https://huggingface.co/ann/gated" in last
    assert "'hf auth login'" in last
