import pickle

import cloudpickle
import numpy as np
import pytest
import torch

from sk_aft._data._rows import as_rows
from sk_aft.backbones import CallableBackbone

CPU = torch.device("cpu")


def lengths(texts):
    return np.array([[len(text), 1] for text in texts])


def embed(backbone, rows, batch_size=64):
    return backbone.embed(as_rows(rows), batch_size=batch_size, device=CPU)


def test_a_function_is_called_with_plain_batches(photographs):
    seen = []

    def remember(batch):
        seen.append(batch)
        return np.zeros((len(batch), 1))

    backbone = CallableBackbone(remember)
    embed(backbone, np.array(["a", "b", "c"]), batch_size=2)
    assert seen == [["a", "b"], ["c"]]
    seen.clear()
    embed(backbone, np.eye(3))
    np.testing.assert_array_equal(seen[0], np.eye(3))
    seen.clear()
    embed(backbone, photographs, batch_size=4)
    assert [batch.shape for batch in seen] == [(4, 64, 64, 3), (2, 64, 64, 3)]
    seen.clear()
    embed(backbone, [*photographs[:2], photographs[2][:5]], batch_size=2)
    assert [[image.shape for image in batch] for batch in seen] == [
        [(64, 64, 3), (64, 64, 3)],
        [(5, 64, 3)],
    ]


@pytest.mark.parametrize("batch_size", [1, 2, 10])
def test_features_are_float32_rows_in_order(batch_size):
    features = embed(CallableBackbone(lengths), ["a", "bb", "ccc"], batch_size)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, [[1, 1], [2, 1], [3, 1]])


def test_a_wrong_shape_names_the_function():
    with pytest.raises(ValueError, match=r"len returned an array of shape \(\) for 2 rows: expect"):
        embed(CallableBackbone(len), ["a", "b"])


def test_declared_fingerprints_and_process_tokens():
    first, second = CallableBackbone(lengths, "v1"), CallableBackbone(len, "v1")
    assert first.fingerprint() == second.fingerprint()
    assert first.is_persistent
    assert first.fingerprint() != CallableBackbone(lengths, "v2").fingerprint()
    bare = CallableBackbone(lengths)
    assert not bare.is_persistent
    assert bare.fingerprint() == CallableBackbone(lengths).fingerprint()
    assert bare.fingerprint() != CallableBackbone(len).fingerprint()
    assert bare.fingerprint() != first.fingerprint()


@pytest.mark.parametrize("fingerprint", [None, "v1"])
def test_pickled_copies_are_the_same_model(fingerprint):
    for function in (lengths, lambda texts: lengths(texts)):
        backbone = CallableBackbone(function, fingerprint)
        copy = pickle.loads(cloudpickle.dumps(backbone))
        assert copy.fingerprint() == backbone.fingerprint()
        assert pickle.loads(cloudpickle.dumps(copy)).fingerprint() == backbone.fingerprint()
        np.testing.assert_array_equal(embed(copy, ["abc"]), [[3, 1]])
