"""Students that are models of timm as folders."""

import numpy as np
import pytest
import torch

timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")

from sk_aft import AFTClassifier  # noqa: E402
from sk_aft.serving import load  # noqa: E402

Y = np.arange(32) % 2
X = np.random.RandomState(0).randint(60, 190, (32, 32, 32, 3)).astype(np.uint8)
X[Y == 1, 8:24, 8:24] //= 3  # a dark square


def fitted(module, **parameters):
    student = AFTClassifier(module, beta=0, max_epochs=1, random_state=0, **parameters)
    return student.fit(X, Y)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("test_resnet", {}),
        ("test_efficientnet", {}),
        ("test_vit", {"img_size": 32}),
        ("test_resnet", {"in_chans": 1}),
    ],
)
def test_a_model_is_rebuilt_without_its_pretrained_weights(name, arguments, tmp_path):
    torch.manual_seed(0)
    student = fitted(timm.create_model(name, **arguments))
    student.save_pretrained(tmp_path, onnx=True)
    with pytest.warns(UserWarning, match=r"does not hold the parameters \['module'\]"):
        loaded = AFTClassifier.from_pretrained(tmp_path)
    expected = student.predict_proba(X)
    np.testing.assert_allclose(loaded.predict_proba(X), expected, atol=1e-6)
    np.testing.assert_allclose(load(tmp_path).predict_proba(X), expected, atol=1e-4)


def test_a_network_of_torchvision_is_refused(tmp_path):
    student = fitted(torchvision.models.resnet18(num_classes=2))
    with pytest.raises(ValueError, match=r"instance of torchvision.*use the same network of timm"):
        student.save_pretrained(tmp_path / "student")
