import json
import pickle
import shutil
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.naive_bayes import GaussianNB

from sk_aft import (
    AFTClassifier,
    AFTRegressor,
    FoundationFeatureExtractor,
    TeacherPredictions,
)
from sk_aft._deployment._teachers import started_from
from sk_aft.backbones import CallableBackbone, resolve_backbone
from sk_aft.modules import EfficientNetLite, PretrainedImage
from sk_aft.store._keys import model_digest
from sk_aft.transfer import Combination, ProbeDistillation, RelationalDistillation

TEXTS = ["I lost my card", "my card was stolen", "what is the rate", "the rate changed"] * 5
LABELS = [0, 0, 1, 1] * 5
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def quick(**parameters):
    return AFTClassifier(max_epochs=1, batch_size=8, random_state=0, **parameters)


def digest_of(model, layers=None):
    fingerprint = resolve_backbone(model).fingerprint()
    return model_digest({**fingerprint, "layers": layers} if layers else fingerprint).hex()


def lengths(texts):
    return np.array([[len(text), text.count("a")] for text in texts], dtype=float)


def table():
    X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    return X, (X[:, 0] > 0).astype(int), PCA(2).fit(X)


def test_a_student_of_texts_knows_its_teacher_and_its_start():
    X = FoundationFeatureExtractor("minilm").fit_transform(TEXTS)
    student = quick().fit(X, LABELS)._fitted
    minilm = {
        "name": "minilm",
        "type": "SentenceTransformerBackbone",
        "column": None,
        "revision": None,
        "fingerprint": digest_of("minilm"),
        "licence": "apache-2.0",
    }
    # The store keeps the middle layer beside the last.
    assert student.teachers == [{**minilm, "fingerprint": digest_of("minilm", [4, 6])}]
    assert student.started_from == minilm


def test_a_student_knows_the_estimators_that_taught_it(tmp_path):
    X, y, pca = table()
    teacher = TeacherPredictions(GaussianNB())
    rows = FoundationFeatureExtractor([pca, teacher]).fit_transform(X, y)
    student = quick().fit(rows, y)
    of_teacher = student._fitted.teachers[1]
    assert (of_teacher["name"], of_teacher["type"]) == ("GaussianNB", "TeacherPredictions")
    assert [one["name"] for one in quick(transfer="aft").fit(rows, y)._fitted.teachers] == ["pca"]
    student.save_pretrained(tmp_path / "saved")
    assert "GaussianNB" in (tmp_path / "saved" / "README.md").read_text()


def test_both_are_kept_in_a_pickle():
    X, y, pca = table()
    features = FoundationFeatureExtractor(pca).fit_transform(X)
    model = quick().fit(features, y)
    again = pickle.loads(pickle.dumps(model))
    assert again._fitted.teachers == model._fitted.teachers
    assert json.loads(json.dumps(model._fitted.teachers)) == model._fitted.teachers
    (teacher,) = model._fitted.teachers
    assert (teacher["name"], teacher["type"]) == ("pca", "SklearnBackbone")
    # The digest is that of the store's keys, where the number of columns counts.
    fingerprint = resolve_backbone(pca).fingerprint()
    assert teacher["fingerprint"] == model_digest({**fingerprint, "n_columns": 4}).hex()
    assert model._fitted.started_from is None


def test_the_fingerprint_is_the_same_without_a_store():
    X, y, pca = table()
    extractors = [FoundationFeatureExtractor(pca, cache=cache) for cache in ("auto", None)]
    students = [quick().fit(extractor.fit_transform(X), y) for extractor in extractors]
    one, other = (student._fitted.teachers for student in students)
    assert one == other


def test_columns_are_recorded():
    frame = pd.DataFrame({"text": TEXTS, "n": np.arange(20.0), "m": np.arange(20.0)})
    count = CallableBackbone(lambda rows: np.asarray(rows, dtype=float), fingerprint="1")
    models = {"text": CallableBackbone(lengths, fingerprint="1"), ("n", "m"): count}
    X = FoundationFeatureExtractor(models).fit_transform(frame)
    teachers = quick().fit(X, LABELS)._fitted.teachers
    assert [teacher["column"] for teacher in teachers] == ["text", ["n", "m"]]
    assert [teacher["name"] for teacher in teachers] == ["lengths", "function"]


def test_features_of_an_array_are_a_teacher_without_a_name():
    X, y, _ = table()
    (teacher,) = quick().fit(X, y, features=X)._fitted.teachers
    assert teacher.pop("type") == "array"
    assert set(teacher.values()) == {None}


@pytest.mark.parametrize(
    ("transfer", "types"),
    [
        ("auto", ["soft targets"]),
        ("aft", ["array"]),
        ([("kd", 1), ("probe-kd", 1)], ["array", "soft targets"]),
        ([("kd", 0), ("probe-kd", 1)], ["soft targets"]),
        (ProbeDistillation(), ["soft targets"]),
        (Combination([(ProbeDistillation(), 1), (RelationalDistillation(), 1)]), None),
    ],
)
def test_soft_targets_are_a_teacher_of_the_methods_that_take_them(transfer, types):
    X, y, _ = table()
    P = np.eye(2)[y]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "aft" says that it ignores soft targets
        student = quick(transfer=transfer).fit(X, y, features=X, soft_targets=P)
    teachers = student._fitted.teachers
    assert [teacher["type"] for teacher in teachers] == (types or ["array", "soft targets"])
    assert json.loads(json.dumps(teachers)) == teachers


def test_the_card_names_soft_targets(tmp_path):
    X, y, _ = table()
    model = quick().fit(X, y, soft_targets=np.eye(2)[y])
    model.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text("utf-8")
    assert "| soft targets given as an array | soft targets |" in card


@pytest.mark.parametrize("parameters", [{"beta": 0}, {"transfer": None}])
def test_nothing_was_learned_without_a_transfer(parameters):
    X, y, pca = table()
    X = FoundationFeatureExtractor(pca).fit_transform(X)
    assert quick(**parameters).fit(X, y)._fitted.teachers == []


def test_plain_rows_have_no_teacher():
    X, y, _ = table()
    model = AFTRegressor(max_epochs=1, beta=0, random_state=0).fit(X, y)
    assert model._fitted.teachers == []


def test_training_that_resumes_keeps_and_adds_teachers():
    X, y, pca = table()
    one = FoundationFeatureExtractor(pca).fit_transform(X)
    other = FoundationFeatureExtractor(PCA(2).fit(X[:20])).fit_transform(X)
    model = quick(transfer="aft")
    for _ in range(2):
        model.partial_fit(one, y, classes=[0, 1])
    first = model._fitted.teachers
    assert len(first) == 1
    before = list(first)
    model.partial_fit(other, y)
    assert first == before
    assert model._fitted.teachers[0] == first[0]
    assert len(model._fitted.teachers) == 2
    again = quick(transfer="aft", warm_start=True).fit(one, y)
    assert len(again.fit(other, y)._fitted.teachers) == 2
    assert len(quick().fit(one, y).fit(other, y)._fitted.teachers) == 1


def test_what_it_started_from_is_kept_when_training_resumes():
    model = quick(module__start="minilm", beta=0, warm_start=True)
    start = model.fit(TEXTS, LABELS)._fitted.started_from
    assert start["name"] == "minilm"
    assert model.fit(TEXTS, LABELS)._fitted.started_from == start
    assert quick(module__start="random", beta=0).fit(TEXTS, LABELS)._fitted.started_from is None


def test_a_local_encoder_is_known_by_its_last_name_not_its_path(encoder_directory):
    directory = encoder_directory("bert")
    student = quick(module=directory, beta=0).fit(TEXTS, LABELS)._fitted
    assert student.started_from == {
        "name": directory.rpartition("/")[2],
        "type": "HuggingFaceBackbone",
        "column": None,
        "revision": None,
        "fingerprint": digest_of(directory),
        "licence": None,
    }


@pytest.mark.parametrize(
    ("parameters", "variant"),
    [
        ({}, 0),
        ({"module": "effnet-lite1"}, 1),
        ({"module": partial(EfficientNetLite, variant=2)}, 2),
        ({"module": EfficientNetLite(n_outputs=2, n_blocks=1)}, 0),
    ],
)
def test_image_students_started_from_imagenet(photographs, parameters, variant):
    if not isinstance(parameters.get("module"), torch.nn.Module):
        parameters = {**parameters, "module__n_blocks": 1, "module__image_size": 32}
    student = quick(beta=0, **parameters).fit(photographs, [0, 1, 0, 1, 0, 1])._fitted
    name = f"effnet-lite{variant}"
    assert student.started_from["name"] == name
    assert student.started_from["fingerprint"] == digest_of(name)
    assert student.started_from["licence"] == "Apache-2.0"


class Convolutions(torch.nn.Sequential):
    """Built as timm's networks are."""

    def __init__(self):
        super().__init__(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1))
        self.fc = torch.nn.Linear(4, 2)
        self.pretrained_cfg = {"hf_hub_id": "timm/conv.a1_in1k", "license": "apache-2.0"}

    def forward(self, images):
        return self.fc(super().forward(images).flatten(1))


def test_networks_of_timm_name_their_repository():
    class Image(PretrainedImage):
        def __init__(self, network):
            torch.nn.Module.__init__(self)
            self.network = network

    found = started_from("timm:conv", {}, Image(Convolutions()), [])
    assert (found["name"], found["licence"]) == ("timm/conv.a1_in1k", "apache-2.0")
    found = started_from(torch.nn.Linear(1, 1), {}, Image(torch.nn.Linear(1, 1)), [])
    assert (found["name"], found["licence"]) == ("Linear", None)


def test_models_of_the_hub_are_described_from_its_cache(encoder_directory, tmp_path, monkeypatch):
    """Without a network."""
    repository = tmp_path / "hub" / "models--ann--tiny"
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(encoder_directory("bert"), snapshot)
    (snapshot / "README.md").write_text("---\ntags: [x]\nlicense: mit\n---\n\nlicense: other\n")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    X = FoundationFeatureExtractor("hf:ann/tiny").fit_transform(TEXTS)
    student = quick(module="hf:ann/tiny").fit(X, LABELS)._fitted
    (teacher,) = student.teachers
    assert teacher["name"] == "ann/tiny"
    assert teacher["revision"] == COMMIT
    assert teacher["licence"] == "mit"
    assert teacher["fingerprint"] == digest_of("hf:ann/tiny", [2, 3])
    # The revision identifies the start, and a fingerprint would need a request.
    assert student.started_from == {**teacher, "fingerprint": None}


class Silent(CallableBackbone):
    """Fails where it is asked for its fingerprint."""

    is_silent = False

    def fingerprint(self):
        if self.is_silent:
            raise RuntimeError("no network")
        return super().fingerprint()


def test_what_cannot_be_found_out_stops_no_training():
    silent = Silent(lengths)
    X = FoundationFeatureExtractor(silent, cache=None).fit_transform(TEXTS)
    silent.is_silent = True
    (teacher,) = quick().fit(X, LABELS)._fitted.teachers
    assert (teacher["name"], teacher["fingerprint"]) == ("lengths", None)


def test_a_fit_asks_no_model_for_its_fingerprint_again():
    silent = Silent(lengths, fingerprint="1")
    X = FoundationFeatureExtractor(silent).fit_transform(TEXTS)
    silent.is_silent = True
    (teacher,) = quick().fit(X, LABELS)._fitted.teachers
    assert teacher["fingerprint"] == digest_of(CallableBackbone(lengths, fingerprint="1"))
