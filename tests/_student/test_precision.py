import inspect
import pickle
import shutil
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from skorch.callbacks import Callback, GradientNormClipping
from torch import nn
from torch._dynamo.utils import counters

from sk_aft import AFTClassifier
from sk_aft.modules import MLP
from sk_aft.optim import RowwiseAdamW

TEXTS = [f"{word} {i}" for i in range(20) for word in ("good film", "bad film", "dull book")]
MOODS = ["glad", "sad", "bored"] * 20


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    X = X[:600].astype(np.float32)
    return X, y[:600], PCA(20, random_state=0).fit_transform(X)


class LogitsOnly(nn.Module):
    """Its features are what its last linear layer gets."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_inputs, 32), nn.ReLU(), nn.Linear(32, n_outputs))

    def forward(self, inputs):
        return self.layers(inputs)


class SeenTypes(nn.Module):
    """Note the types of what a loss gets."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def forward(self, *tensors):
        self.seen |= {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
        if len(tensors) == 2 and tensors[1].ndim == 2:  # features
            return tensors[0].square().mean()
        return nn.functional.cross_entropy(*tensors)


class Recorder(nn.Linear):
    """Note the types that a layer returns, by whether it is trained."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.seen = set()

    def forward(self, inputs):
        outputs = super().forward(inputs)
        self.seen.add((self.training, outputs.dtype))
        return outputs


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16-mixed", torch.bfloat16), ("16-mixed", torch.float16)]
)
@pytest.mark.parametrize("module", [MLP, LogitsOnly])
def test_mixed_precision_learns_as_float32_does(digits, precision, dtype, module):
    X, y, features = digits
    full = AFTClassifier(module, transfer="aft", lr=0.01, max_epochs=15, random_state=0)
    mixed = clone(full).set_params(precision=precision)
    full.fit(X, y, features=features)
    mixed.fit(X, y, features=features)
    assert mixed.score(X, y) > 0.95
    assert mixed.loss_curve_ != full.loss_curve_  # something was rounded
    np.testing.assert_allclose(mixed.loss_curve_, full.loss_curve_, rtol=0.05)
    again = clone(mixed).fit(X, y, features=features)
    assert again.loss_curve_ == mixed.loss_curve_


@pytest.mark.parametrize("has", [False, True])
def test_slow_bfloat16_is_warned_of(digits, has, monkeypatch):
    X, y, _ = digits
    student = AFTClassifier(beta=0, max_epochs=1, precision="bf16-mixed", device="cpu")
    known = {"avx2": True, "avx512_bf16": has}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        student.fit(X[:50], y[:50])
    texts = [str(one.message) for one in caught]
    assert any("no instructions for bfloat16" in text for text in texts) != has


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16-mixed", torch.bfloat16), ("16-mixed", torch.float16)]
)
def test_only_the_network_in_training_has_16_bits(digits, precision, dtype):
    X, y, features = digits
    network = nn.Sequential(Recorder(64, 32), nn.ReLU(), Recorder(32, 10))
    student = AFTClassifier(
        network,
        criterion=SeenTypes(),
        transfer=SeenTypes(),
        beta=1,
        max_epochs=2,
        early_stopping=True,
        precision=precision,
    ).fit(X, y, features=features)
    student.predict(X)
    for layer in student.module_[::2]:
        assert layer.seen >= {(True, dtype), (False, torch.float32)}
        assert (True, torch.float32) not in layer.seen
        assert (False, dtype) not in layer.seen
    assert student.criterion_.seen == student.transfer_.seen == {torch.float32}
    assert {p.dtype for p in student.module_.parameters()} == {torch.float32}


def test_callbacks_see_gradients_that_are_not_scaled(digits):
    class Gradients(Callback):
        def __init__(self):
            self.norms = []

        def on_grad_computed(self, net, named_parameters, **kwargs):
            self.norms.append(max(p.grad.norm().item() for _, p in named_parameters))

    X, y, _ = digits
    norms = {}
    for precision in ("float32", "16-mixed"):
        gradients = Gradients()
        AFTClassifier(
            beta=0,
            max_epochs=1,
            precision=precision,
            callbacks=[gradients, ("clip", GradientNormClipping(100.0))],
            random_state=0,
        ).fit(X, y)
        norms[precision] = gradients.norms
    np.testing.assert_allclose(norms["16-mixed"], norms["float32"], rtol=0.05)


def test_mixed_precision_trains_sparse_embeddings():
    student = AFTClassifier(beta=0, max_epochs=30, precision="16-mixed", random_state=0)
    assert student.fit(TEXTS, MOODS).score(TEXTS, MOODS) == 1.0


class Steep(nn.Module):
    """A loss whose gradients, times 2 ** 16, are no float16."""

    def forward(self, logits, targets):
        return 1e4 * nn.functional.cross_entropy(logits, targets)


@pytest.mark.filterwarnings("error")
def test_a_step_with_infinite_gradients_is_left_out(digits):
    class Overflow(RowwiseAdamW):
        n_steps = 0

        def step(self, closure=None):
            Overflow.n_steps += 1
            assert all(p.grad.isfinite().all() for p in self.param_groups[0]["params"])
            return super().step(closure)

    X, y, _ = digits
    student = AFTClassifier(
        beta=0,
        criterion=Steep(),
        optimizer=Overflow,
        max_epochs=3,
        precision="16-mixed",
        random_state=0,
    ).fit(X, y)
    assert 0 < Overflow.n_steps < 3 * 5
    assert all(p.isfinite().all() for p in student.module_.parameters())


def test_pieces_go_on_with_the_scale_that_was_found(digits):
    X, y, _ = digits
    student = AFTClassifier(
        beta=0, criterion=Steep(), lr=0.01, precision="16-mixed", random_state=0
    )
    for _ in range(40):
        student.partial_fit(X[:128], y[:128], classes=range(10))
    assert student.score(X[:128], y[:128]) > 0.9


def test_overflow_says_what_helps(digits):
    X, y, _ = digits
    student = AFTClassifier(beta=0, preprocessor=None, precision="16-mixed", max_epochs=3)
    with pytest.raises(ValueError, match=r"diverged.* precision='bf16-mixed' or 'float32'"):
        student.fit(1e6 * X, y)


def test_a_network_of_float64_keeps_its_digits(digits):
    class Double(nn.Module):
        def __init__(self, n_inputs, n_outputs):
            super().__init__()
            self.linear = nn.Linear(n_inputs, n_outputs, dtype=torch.float64)

        def forward(self, inputs):
            return self.linear(inputs.double())

    seen = SeenTypes()
    X, y, _ = digits
    student = AFTClassifier(Double, criterion=seen, beta=0, max_epochs=1).fit(X, y)
    assert student.criterion_.seen == {torch.float64}


def test_fp16_rejects_optimizers_with_several_losses_a_step(digits):
    X, y, _ = digits
    student = AFTClassifier(beta=0, optimizer=torch.optim.LBFGS, precision="16-mixed")
    with pytest.raises(ValueError, match=r"does not work with LBFGS.*'bf16-mixed' or 'float32'"):
        student.fit(X, y)


def test_precision_has_to_be_known(digits):
    X, y, _ = digits
    with pytest.raises(ValueError, match="'precision' parameter of AFTClassifier must be"):
        AFTClassifier(beta=0, precision="float16").fit(X, y)


@pytest.mark.parametrize("module", [MLP, LogitsOnly])
def test_compile_trains_the_same_network_and_leaves_it_plain(digits, module):
    X, y, features = digits
    plain = AFTClassifier(module, beta=10, lr=0.01, max_epochs=3, random_state=0)
    calls = []

    def backend(graph, inputs):
        def run(*tensors):
            calls.append(len(tensors))
            return graph(*tensors)

        return run

    compiled = clone(plain).set_params(compile=True, compile__backend=backend)
    plain.fit(X, y, features=features)
    compiled.fit(X, y, features=features)
    n_steps = 3 * 5
    assert len(calls) >= n_steps - 1
    np.testing.assert_allclose(compiled.loss_curve_, plain.loss_curve_, rtol=1e-4)
    before = len(calls)
    np.testing.assert_allclose(compiled.predict_proba(X), plain.predict_proba(X), atol=1e-4)
    assert len(calls) == before  # predictions are not compiled
    assert type(compiled.module_) is module
    compiled.set_params(compile__backend="eager")
    loaded = pickle.loads(pickle.dumps(compiled))
    np.testing.assert_array_equal(loaded.predict_proba(X), compiled.predict_proba(X))


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch itself
def test_compile_makes_machine_code(digits):
    X, y, features = digits
    plain = AFTClassifier(beta=10, max_epochs=2, random_state=0)
    compiled = clone(plain).set_params(compile=True)
    plain.fit(X, y, features=features)
    counters["stats"].clear()
    compiled.fit(X, y, features=features)
    assert counters["stats"]["unique_graphs"] > 0
    np.testing.assert_allclose(compiled.loss_curve_, plain.loss_curve_, rtol=1e-4)


def test_later_compilations_are_compiled_too(digits):
    if "isolate_recompiles" not in inspect.signature(torch.compile).parameters:
        pytest.skip("an older torch compiles the first few networks of a search only")
    X, y, _ = digits
    n_calls = []

    def backend(graph, inputs):
        def run(*tensors):
            n_calls[-1] += 1
            return graph(*tensors)

        return run

    for width in range(4, 16):
        n_calls.append(0)
        AFTClassifier(
            beta=0,
            module__hidden_sizes=(width,),
            compile=True,
            compile__backend=backend,
            max_epochs=2,
        ).fit(X, y)
    assert min(n_calls) == max(n_calls) > 0


def test_pieces_are_compiled(digits):
    X, y, _ = digits
    n_calls = []

    def backend(graph, inputs):
        def run(*tensors):
            n_calls.append(1)
            return graph(*tensors)

        return run

    student = AFTClassifier(beta=0, compile=True, compile__backend=backend)
    for _ in range(4):
        student.partial_fit(X[:100], y[:100], classes=range(10))
    assert len(n_calls) == 3  # all but the first


def test_compile_rejects_unknown_arguments(digits):
    X, y, _ = digits
    with pytest.raises(ValueError, match="Invalid parameter compile__speed"):
        AFTClassifier(beta=0, compile=True, compile__speed=2).fit(X, y)
