import time

import pytest

from sk_aft import FoundationFeatureExtractor


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
