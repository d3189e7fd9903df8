"""The page of docs/examples/browser, in headless Chromium."""
# ruff: noqa: RUF001

import gzip
import json
import os
import shutil
import sys
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sk_aft import AFTClassifier
from sk_aft._data._texts import TextEncoder
from sk_aft.serving import load

pytestmark = pytest.mark.slow
LOOK = Path(__file__).with_name("look_at_page.mjs")
UNUSUAL = [
    "",
    "   ",
    "Ünïcödé im Café, ça coûte 12,50 € ½",
    "İstanbul ISTANBUL ıı",
    "ΧΑΘΗΚΕ Η ΚΑΡΤΑ ΜΟΥ ΟΔΟΣ",
    "カードを失くした 我的卡丢了 \U00020000\U0002f800",
    "💳 lost 👨‍👩‍👧 👍🏽",
    "a\u0301 e\u0301 no\u0308",
    "snake_case don't a-b ... ?!",
    "\ufeffbom \u200bzero\u00a0width\x85next\x1fline",
    "नमस्ते ไทย العربية עברית",
    "half \ud83d of a pair",
    "word " * 5000,
]


class _Handler(SimpleHTTPRequestHandler):
    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}

    def end_headers(self):
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()

    def log_message(self, *args):
        pass


@contextmanager
def served(folder):
    """Serve a folder on this machine; yield the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def page(installed, intents):
    """The folder of the page, with its packages and the student; and its address."""
    folder = installed("browser")
    shutil.copytree(intents.folder, folder / "student")
    with served(folder) as address:
        yield folder, f"{address}index.html"


@pytest.fixture(scope="module")
def look(page, printed_by):
    """Function that opens the page in Chromium and returns what it says."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    folder, address = page

    def look_at(query="", texts=(), page=address):
        seen = json.loads(printed_by(["node", LOOK, chromium, page + query, *texts], folder))
        assert not seen["errors"]
        assert all(url.startswith("http://127.0.0.1:") for url in seen["requested"])
        return seen

    return look_at


def test_the_page_agrees_with_parity_on_all_its_rows(page, look, intents, printed_by, monkeypatch):
    folder, _ = page
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    (folder / "texts.txt").write_text("\n".join(intents.texts), "utf-8")
    printed_by([sys.executable, "write_check.py", "student", "texts.txt", "check.json"], folder)
    check = json.loads((folder / "check.json").read_text())
    assert len(check["rows"]) == intents.parity["n_rows"]

    seen = look(texts=check["rows"])

    print(f"The page says: {seen['loading']} {seen['parity']}", sizes(folder), sep="\n")
    assert seen["parity"].startswith("Agrees with parity.json: 32 rows"), seen
    assert seen["problems"] == []
    assert seen["labels"] == load(intents.folder).predict(check["rows"]).tolist()


def sizes(folder):
    """Return the kilobytes of each file that the page loads, and those of gzip."""
    modules = folder / "node_modules"
    runtime = modules / "onnxruntime-web" / "dist"
    files = {
        "ONNX Runtime, WebAssembly": runtime / "ort-wasm-simd-threaded.wasm",
        "ONNX Runtime, JavaScript": runtime / "ort.wasm.bundle.min.mjs",
        "tokenizer library": modules / "@huggingface" / "tokenizers" / "dist/tokenizers.min.mjs",
        "page": folder / "index.html",
        "student.js": folder / "student.js",
        **{name: folder / "student" / name for name in ("config.json", "tokenizer.json")},
        "model.onnx": folder / "student" / "onnx" / "model.onnx",
    }
    contents = {name: path.read_bytes() for name, path in files.items()}
    return "\n".join(
        f"{name}: {len(content) / 1000:.0f} kB, {len(gzip.compress(content)) / 1000:.0f} with gzip"
        for name, content in contents.items()
    )


def test_images_of_any_size_agree_with_parity(page, look, photographs, printed_by, monkeypatch):
    folder, _ = page
    images = np.concatenate([photographs, photographs[:, ::-1]])
    labels = ["upright"] * 6 + ["upside down"] * 6
    student = AFTClassifier(beta=0, max_epochs=2, random_state=0).fit(images[:, ::2, ::2], labels)
    student.save_pretrained(folder / "pictures", X_test=images, onnx=True)
    paths = [f"image_{number}.png" for number in range(12)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(folder / path)
    transparent = np.dstack([images[0], np.full((64, 64), 128, np.uint8)])
    Image.fromarray(transparent).save(folder / "transparent.png")
    (folder / "paths.txt").write_text("\n".join([*paths, "transparent.png"]))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    command = [sys.executable, "write_check.py", "pictures", "paths.txt", "pictures.json"]
    printed_by(command, folder)
    probabilities = np.array(json.loads((folder / "pictures.json").read_text())["probabilities"])
    assert probabilities.std(axis=0).max() > 0.01  # wrong pixels would be noticed

    seen = look("?folder=pictures&check=pictures.json")

    print(f"The page says of images: {seen['loading']} {seen['parity']}")
    assert seen["parity"].startswith("Agrees with parity.json: 13 rows"), seen


@pytest.mark.filterwarnings("ignore:.* texts have more than max_length")
def test_tokens_of_unusual_texts_are_those_of_python(page, look, intents):
    folder, _ = page
    check = expected_of(intents, UNUSUAL)
    (folder / "unusual.json").write_text(json.dumps(check))
    seen = look("?check=unusual.json")
    assert seen["parity"].startswith(f"Agrees with parity.json: {len(UNUSUAL)} rows"), seen


def expected_of(student, texts):
    """Return what write_check.py writes, of texts that a file of lines cannot hold."""
    document = (student.folder / "tokenizer.json").read_text("utf-8")
    return {
        "identity": student.parity["identity"],
        "rows": texts,
        "tokens": TextEncoder(document, 4096)(texts),
        "probabilities": load(student.folder).predict_proba(texts).tolist(),
    }


def test_the_page_says_what_differs(page, look, intents):
    folder, _ = page
    check = expected_of(intents, intents.texts[:2])
    check["probabilities"][0][0] += 0.5
    check["tokens"][1].append(1)
    check["identity"] = "another student"
    (folder / "wrong.json").write_text(json.dumps(check))
    seen = look("?check=wrong.json")
    assert seen["parity"].startswith("Does not agree with parity.json: 2 rows")
    assert seen["problems"] == [
        "parity.json and the predictions of Python belong to different students",
        f"probabilities differ by 0.50: {json.dumps(intents.texts[0])}",
        f"other tokens: {json.dumps(intents.texts[1])}",
    ]


def test_a_quantised_graph_may_differ_as_parity_says(page, look, intents):
    folder, _ = page
    shutil.copytree(intents.folder, folder / "small")
    student = AFTClassifier.from_pretrained(folder / "small")
    parity = student.export_onnx(folder / "small", intents.texts, quantize="int8")
    check = expected_of(intents, intents.texts) | {"identity": parity["identity"]}
    (folder / "small.json").write_text(json.dumps(check))
    seen = look("?folder=small&check=small.json")
    print(f"The page says of int8: {seen['loading']} {seen['parity']}")
    assert seen["parity"].startswith("Agrees with parity.json: 77 rows"), seen


def test_without_predictions_of_python_the_page_says_so(look):
    seen = look("?check=none.json")
    assert seen["loading"].startswith("Loaded in")
    assert seen["parity"].startswith("There is no none.json")


def test_a_folder_that_the_page_cannot_read_is_explained(page, look):
    folder, _ = page
    config = json.loads((folder / "student" / "config.json").read_text())
    shutil.copytree(folder / "student", folder / "regressor")
    (folder / "regressor" / "config.json").write_text(
        json.dumps(config | {"class": "AFTRegressor"})
    )
    assert "expected an AFTClassifier of texts or images" in look("?folder=regressor")["loading"]
    assert "copy the student's folder beside this page" in look("?folder=none")["loading"]


def test_the_packages_may_come_from_another_host_as_from_a_cdn(page, look):
    folder, address = page
    source = (folder / "index.html").read_text("utf-8")
    with served(folder / "node_modules") as elsewhere:
        assert source.count('"./node_modules/') == 2
        moved = source.replace('"./node_modules/', f'"{elsewhere}')
        (folder / "cdn.html").write_text(moved, "utf-8")
        seen = look("?check=none.json", page=address.replace("index.html", "cdn.html"))
    assert seen["loading"].startswith("Loaded in")
    there = {Path(url).name for url in seen["requested"] if url.startswith(elsewhere)}
    assert {"ort.wasm.bundle.min.mjs", "tokenizers.min.mjs"} < there
    assert "ort-wasm-simd-threaded.wasm" in there
