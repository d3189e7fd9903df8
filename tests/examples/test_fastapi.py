"""The service of docs/examples/fastapi."""

import json
import os
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sk_aft import AFTRegressor
from sk_aft.serving import load

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("httpx2", reason="httpx2 is not installed")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def create_app(examples):
    return runpy.run_path(str(examples / "fastapi" / "service.py"))["create_app"]


@pytest.fixture
def client(create_app, intents):
    from fastapi.testclient import TestClient

    with TestClient(create_app(str(intents.folder), wait=0.05)) as client:
        yield client


def answers_of(client, requests):
    """Return what simultaneous requests are answered."""
    with ThreadPoolExecutor(len(requests)) as threads:
        return list(
            threads.map(lambda rows: client.post("/predict", json={"rows": rows}), requests)
        )


def test_simultaneous_requests_are_predicted_together(client, intents):
    requests = [intents.texts[i : i + 1 + i % 3] for i in range(24)]
    answers = answers_of(client, requests)
    student = load(intents.folder)
    for texts, answer in zip(requests, answers, strict=True):
        predictions = answer.json()["predictions"]
        assert [found["label"] for found in predictions] == student.predict(texts).tolist()
        largest = student.predict_proba(texts).max(axis=1)
        assert [found["probability"] for found in predictions] == pytest.approx(largest, abs=1e-6)
    counted = client.get("/health").json()
    assert counted["rows"] == sum(map(len, requests))
    assert counted["batches"] < len(requests) / 2


def test_a_full_batch_takes_no_further_request(create_app, intents):
    from fastapi.testclient import TestClient

    with TestClient(create_app(str(intents.folder), wait=0.2, most_rows=4)) as client:
        answers = answers_of(client, [intents.texts[:2]] * 6)
        assert [answer.status_code for answer in answers] == [200] * 6
        assert client.get("/health").json()["batches"] >= 3


def test_only_requests_with_wrong_rows_have_an_error(client, intents):
    requests = [intents.texts[:2], ["a card", 5], intents.texts[2:4]]
    right, wrong, also_right = answers_of(client, requests)
    assert right.status_code == also_right.status_code == 200
    assert wrong.status_code == 422
    with pytest.raises((ValueError, TypeError)) as raised:
        load(intents.folder).predict(["a card", 5])
    assert wrong.json()["detail"] == str(raised.value)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"rows": []}, "at least 1 item"),
        ({"rows": ["a"] * 1001}, "at most 1000 items"),
        ({"texts": ["a"]}, "Field required"),
        ({"rows": "one text"}, "valid list"),
    ],
)
def test_requests_in_another_form_are_explained(client, body, said):
    answer = client.post("/predict", json=body)
    assert answer.status_code == 422
    assert said in answer.json()["detail"][0]["msg"]


def test_a_regressor_of_numbers_answers_numbers(create_app, tmp_path):
    from fastapi.testclient import TestClient

    X = np.random.default_rng(0).normal(size=(60, 3))
    student = AFTRegressor(beta=0, max_epochs=2, random_state=0).fit(X, X[:, 0])
    student.save_pretrained(tmp_path / "numbers", X_test=X, onnx=True)
    with TestClient(create_app(str(tmp_path / "numbers"))) as client:
        right = client.post("/predict", json={"rows": X[:4].tolist()})
        wrong = client.post("/predict", json={"rows": [[1.0, 2.0]]})
    expected = load(tmp_path / "numbers").predict(X[:4])
    assert right.json()["predictions"] == pytest.approx(expected.tolist(), abs=1e-6)
    assert "2 columns, but the student was trained on 3" in wrong.json()["detail"]


def test_the_steps_of_the_dockerfile_make_a_service(examples, intents, tmp_path):
    source, image = tmp_path / "context", tmp_path / "image"
    shutil.copytree(examples / "fastapi", source)
    shutil.copytree(intents.folder, source / "student")
    wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", source, ROOT]
    subprocess.run(wheel, check=True, timeout=300)
    venv.create(tmp_path / "venv", with_pip=True)
    environment = _environment(tmp_path / "venv")
    steps = dockerfile(source / "Dockerfile")
    port = str(free_port())

    for instruction, argument in steps:
        if instruction == "WORKDIR":
            image.mkdir()
        elif instruction == "COPY":
            copy(argument, source, image)
        elif instruction == "RUN":
            subprocess.run(
                argument, shell=True, check=True, cwd=image, env=environment, timeout=300
            )
        elif instruction == "ENV":
            environment |= dict(setting.split("=") for setting in shlex.split(argument))
    command = json.loads(dict(steps)["CMD"].replace("8000", port).replace("0.0.0.0", "127.0.0.1"))
    program = shutil.which(command[0], path=environment["PATH"])
    service = subprocess.Popen([program, *command[1:]], cwd=image, env=environment)
    try:
        health = dict(steps)["HEALTHCHECK"].removeprefix("CMD ").replace("8000", port)
        wait_until_healthy(service, health, environment)
        answer = posted(f"http://127.0.0.1:{port}/predict", {"rows": intents.texts})
    finally:
        service.terminate()
        service.wait(timeout=30)

    labels = [found["label"] for found in answer["predictions"]]
    assert labels == load(intents.folder).predict(intents.texts).tolist()
    assert not installed_packages(environment) & {"torch", "scikit-learn", "skorch", "scipy"}


def _environment(directory):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    programs = directory / ("Scripts" if os.name == "nt" else "bin")
    return kept | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}


def dockerfile(path):
    """Return the instructions of a Dockerfile, which are all known, with their arguments."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    steps = [tuple(line.split(" ", 1)) for line in lines]
    known = ["FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "CMD"]
    assert {instruction for instruction, _ in steps} <= set(known)
    assert re.fullmatch(r"python:3\.\d+-slim", dict(steps)["FROM"])
    return steps


def copy(argument, source, image):
    """Do what COPY does with files, patterns and a folder."""
    *patterns, target = argument.split()
    for pattern in patterns:
        paths = list(source.glob(pattern))
        assert paths, f"COPY {pattern}: there is none"
        for path in paths:
            if path.is_dir():
                shutil.copytree(path, image / target)
            else:
                shutil.copy(path, image / target)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_until_healthy(service, health, environment):
    for _ in range(120):
        assert service.poll() is None, "the service has ended"
        if not subprocess.run(health, shell=True, env=environment, capture_output=True).returncode:
            return
        time.sleep(0.25)
    raise AssertionError("the service does not answer")


def posted(url, body):
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def installed_packages(environment):
    command = ["python", "-m", "pip", "list", "--format=json"]
    program = shutil.which(command[0], path=environment["PATH"])
    listed = subprocess.run(
        [program, *command[1:]], env=environment, capture_output=True, text=True
    )
    return {package["name"].lower() for package in json.loads(listed.stdout)}
