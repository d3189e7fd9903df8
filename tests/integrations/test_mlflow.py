"""MLflow logs students, and serves deployed folders without PyTorch and scikit-learn."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import sk_aft

mlflow = pytest.importorskip("mlflow")
pytest.importorskip("sqlalchemy")
skops_io = pytest.importorskip("skops.io")

# MLflow 3.17 uses what SQLAlchemy 2.1 and pandas 3 deprecated, in its store and for examples.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated:DeprecationWarning"),
]

MODEL = """
import mlflow

from sk_aft.serving import load


class Questions(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.student = load(context.artifacts["student"])

    def predict(self, context, model_input: list[str]) -> list[str]:
        return self.student.predict(model_input).tolist()


mlflow.models.set_model(Questions())
"""


@pytest.fixture(scope="module", autouse=True)
def _runs(tmp_path_factory):
    """A new SQLite store, made once because that takes seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    artifacts = (folder / "artifacts").as_uri()
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("tests", artifacts))
    yield
    mlflow.set_tracking_uri(before)


def log_model(model, example=None, **options):
    return mlflow.sklearn.log_model(
        model, name="questions", input_example=example, pip_requirements=["sk-aft"], **options
    )


def test_a_logged_student_predicts_the_same(fitted, test_questions):
    student = fitted[-1]
    types = skops_io.get_untrusted_types(data=skops_io.dumps(student))
    logged = log_model(student, test_questions[0].head(2), skops_trusted_types=types)

    again = mlflow.sklearn.load_model(logged.model_uri)
    rows = test_questions[0]
    np.testing.assert_array_equal(again.predict_proba(rows), student.predict_proba(rows))
    assert [column.name for column in logged.signature.inputs] == ["text"]
    served = mlflow.pyfunc.load_model(logged.model_uri)
    assert (served.predict(rows) == student.predict(rows)).all()


def test_a_student_is_not_logged_unless_its_types_are_trusted(fitted):
    student = fitted[-1]
    with pytest.raises(mlflow.MlflowException, match=r"untrusted types.*sk_aft\._classifier"):
        log_model(student)


def test_a_logged_student_reads_a_list_of_texts(pipe, questions, test_questions):
    student = pipe.fit(questions[0]["text"].tolist(), questions[1])[-1]
    texts = test_questions[0]["text"].tolist()
    types = skops_io.get_untrusted_types(data=skops_io.dumps(student))
    logged = log_model(student, texts[:2], skops_trusted_types=types)
    served = mlflow.pyfunc.load_model(logged.model_uri)
    assert (served.predict(texts) == student.predict(texts)).all()


def test_a_pipeline_is_logged_with_cloudpickle(fitted, test_questions):
    logged = log_model(fitted, serialization_format="cloudpickle")
    again = mlflow.sklearn.load_model(logged.model_uri)
    assert (again.predict(test_questions[0]) == fitted.predict(test_questions[0])).all()
    np.testing.assert_array_equal(
        again[0].transform(test_questions[0]).features,
        fitted[0].transform(test_questions[0]).features,
    )


@pytest.fixture(scope="module")
def served(fitted, tmp_path_factory, _runs):
    """A logged folder, and the student that was saved in it."""
    student = fitted[-1]
    folder = tmp_path_factory.mktemp("served")
    student.save_pretrained(folder / "saved")
    (folder / "serve_questions.py").write_text(MODEL)
    logged = mlflow.pyfunc.log_model(
        name="questions",
        python_model=str(folder / "serve_questions.py"),
        artifacts={"student": str(folder / "saved")},
        code_paths=[str(Path(sk_aft.__file__).parent)],
        pip_requirements=["mlflow-skinny", "pandas", "numpy", "tokenizers"],
    )
    return logged, student


def test_a_pyfunc_of_a_folder_predicts_the_same(served, test_questions):
    logged, student = served
    model = mlflow.pyfunc.load_model(logged.model_uri)
    expected = student.predict(test_questions[0]).tolist()
    assert model.predict(test_questions[0]["text"].tolist()) == expected
    assert model.predict(test_questions[0]) == expected


def test_a_pyfunc_of_a_folder_needs_neither_pytorch_nor_scikit_learn(served, test_questions):
    logged, student = served
    folder = mlflow.artifacts.download_artifacts(logged.model_uri)
    requirements = (Path(folder) / "requirements.txt").read_text().split()
    assert requirements == ["mlflow-skinny", "pandas", "numpy", "tokenizers"]
    assert not list(Path(folder).rglob("*.pkl"))

    texts = test_questions[0]["text"].tolist()
    program = """
        import json, sys
        import mlflow.pyfunc

        model = mlflow.pyfunc.load_model(sys.argv[1])
        predicted = model.predict(json.load(sys.stdin))
        heavy = [name for name in ("torch", "skorch", "sklearn") if name in sys.modules]
        print(json.dumps([predicted, heavy, sys.modules["sk_aft"].__file__]))
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), folder],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    predicted, heavy, file = json.loads(ran.stdout)
    assert predicted == student.predict(texts).tolist()
    assert heavy == []
    assert Path(file).is_relative_to(folder)  # not the one that is installed
