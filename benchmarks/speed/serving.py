"""What it costs to deploy a student: sizes, start, memory and predictions, in fresh processes.

    python -m benchmarks.speed.serving [--work DIR] [--table]

Each model is loaded by a process of its own, in turns, for 7 rounds; figures are medians. Nothing
uses more than one thread. Models are trained once and kept in ``--work``; that takes three minutes
of one core. model2vec is left out if it is not installed. ``--table`` only prints the last results
as Markdown, for docs/guide/deployment.md.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from platformdirs import user_cache_path

from benchmarks.speed._served_models import PICTURE_LABELS, PICTURES, TEXT_LABELS, TEXTS, make
from benchmarks.speed._timing import RESULTS, keep, option_parser, show

ROUNDS = 7
_UNITS = {
    "files_mb": "files of {} MB",
    "packages_mb": "packages of {} MB",
    "seconds": "{} s until the first prediction",
    "resident_mb": "{} MB resident",
    "ms_alone": "{} ms alone",
    "ms_in_batches": "{} ms in batches",
    "accuracy": "{} % accuracy",
}
_DIGITS = {"seconds": 2, "ms_alone": 3, "ms_in_batches": 3, "packages_mb": 0, "resident_mb": 0}


class Contestant(NamedTuple):
    """A deployed model.

    Parameters
    ----------
    what : str
        How it is called in the table.
    loader : str
        Function of `benchmarks.speed._serving_process` that loads it.
    targets : dict of str to float
        Largest values that it should have.
    """

    what: str
    loader: str
    targets: dict[str, float]


_STATIC = {"seconds": 0.35, "resident_mb": 90, "ms_alone": 0.2, "ms_in_batches": 0.06}
TEXT_MODELS = {
    "static_float32": Contestant("static student, float32", "served", _STATIC),
    "static_float16": Contestant("static student, float16", "served", {"files_mb": 5, **_STATIC}),
    "static_int8": Contestant("static student, int8", "served", {"files_mb": 3, **_STATIC}),
    "static": Contestant("the same student in PyTorch", "unpickled", {}),
    "tfidf": Contestant("TF-IDF + logistic regression", "unpickled", {}),
    "model2vec": Contestant("model2vec + logistic regression", "model2vec", {}),
    "minilm_and_probe": Contestant(
        "MiniLM, int8 ONNX + logistic regression", "encoder_and_probe", {}
    ),
    # Trained for a few steps, so its accuracy means nothing.
    "two_layers": Contestant("MiniLM, 2 layers, int8 ONNX", "served", {"ms_alone": 1.2}),
}
PICTURE_MODELS = {
    "lite_float32": Contestant(
        "EfficientNet-Lite0, 8 blocks, 64 px, ONNX", "served", {"ms_alone": 1.5}
    ),
    "lite_int8": Contestant('the same student, quantize="int8"', "served", {"ms_alone": 1.5}),
    "lite": Contestant("the same student in PyTorch", "unpickled", {}),
}
WITHOUT_ACCURACY = "two_layers"


def main() -> None:
    """Train what is missing, measure, and print everything; or only print the table."""
    parser = option_parser(__doc__)
    default = user_cache_path("sk-aft") / "serving_benchmark"
    parser.add_argument("--work", metavar="DIR", type=Path, default=default, help="kept models")
    parser.add_argument("--table", action="store_true", help="print the last results as Markdown")
    options = parser.parse_args()
    if options.table:
        print(table(json.loads((RESULTS / "serving.json").read_text())["figures"]))
        return
    torch.set_num_threads(1)
    contestants = TEXT_MODELS | PICTURE_MODELS
    if find_spec("model2vec") is None:
        print("model2vec is left out: pip install 'model2vec[distill]'")
        del contestants["model2vec"]
    make(contestants, options.work)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, contestant in contestants.items():
            found[name].append(measured(name, contestant.loader, options.work))
    rows = [row(name, contestants[name], found[name], options.work) for name in contestants]
    for one in rows:
        show(one)
    keep("serving", rows)
    print(f"\n{table(rows)}")


def measured(name: str, loader: str, work: Path) -> dict[str, float]:
    """Return what a model of this benchmark costs in a fresh process."""
    is_text = name in TEXT_MODELS
    rows, labels = (TEXTS, TEXT_LABELS) if is_text else (PICTURES, PICTURE_LABELS)
    return in_fresh_process(loader, work / name, work / rows, work / labels)


def in_fresh_process(loader: str, model: Path, rows: Path, labels: Path) -> dict[str, float]:
    """Return what a model costs in a fresh process that has one thread.

    Parameters
    ----------
    loader : str
        Function of `benchmarks.speed._serving_process` that loads it.
    model, rows, labels : Path
        The model, and the rows that it predicts, as `write_rows` writes them.
    """
    command = [sys.executable, "-m", "benchmarks.speed._serving_process", loader]
    command += [str(path) for path in (model, rows, labels)]
    threads = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    environment = {**os.environ, **threads}
    environment.pop("TOKENIZERS_PARALLELISM", None)
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def costs(found: list[dict[str, float]], path: Path) -> dict[str, float]:
    """Return the size of a model's files, and the medians of what rounds have found."""
    files = [path, *path.rglob("*")]
    values = {"files_mb": sum(file.stat().st_size for file in files if file.is_file()) / 1e6}
    values |= {key: statistics.median(one[key] for one in found) for key in found[0]}
    return {key: round(value, _DIGITS.get(key, 1)) for key, value in values.items()}


def row(
    name: str, contestant: Contestant, found: list[dict[str, float]], work: Path
) -> dict[str, Any]:
    """Return the medians of a model as a figure of the results."""
    values = costs(found, work / name)
    if name == WITHOUT_ACCURACY:
        del values["accuracy"]
    targets = [_UNITS[key].format(limit) for key, limit in contestant.targets.items()]
    return {
        "what": contestant.what,
        "ours": ", ".join(_UNITS[key].format(values[key]) for key in _UNITS if key in values),
        **({"target": ", ".join(targets)} if targets else {}),
        **values,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the figures as Markdown: texts, and below them pictures."""
    lines = [
        "| | files, MB | packages, MB | start, s | memory, MB | one row, ms "
        "| each of 256, ms | accuracy, % |",
        "|---" * 8 + "|",
    ]
    for one in rows:
        values = [one.get(key) for key in _UNITS]
        cells = ["" if value is None else f"{value:g}" for value in values]
        lines.append(f"| {' | '.join([one['what'], *cells])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
