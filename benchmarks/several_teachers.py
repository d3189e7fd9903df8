"""What one scale for the features of several teachers is worth: the error with and without it.

    python -m benchmarks.several_teachers --data DIR [--seeds N] [--print]

DIR holds trec.parquet and sst2.parquet, see `benchmarks.accuracy`. Teachers are MiniLM and the
static embeddings of wordllama (``pip install --no-deps wordllama``), whose features are larger.
"one scale" is what a student does with the features of two models. "as they are" gives it the same
features as one array. Labels are 10 or 50 of each class; the other training rows have none. Test
rows are scored once. Lines go to ``benchmarks/results/several_teachers.jsonl``; what is there is
not run again.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import files
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from benchmarks.default_transfer import Run, read
from sk_aft import FoundationFeatureExtractor
from sk_aft.backbones import CallableBackbone

RESULTS = Path(__file__).parent / "results" / "several_teachers.jsonl"
TASKS, METHODS, SCALES = ("trec:10", "sst2:10", "trec:50"), ("aft", "kd"), (True, False)
_FIRST_SEED = 10


def wordllama() -> CallableBackbone:
    """Return the mean of a text's static embeddings as a foundation model."""
    paths = [str(file.locate()) for file in files("wordllama") or ()]
    tokenizer = Tokenizer.from_file(next(p for p in paths if p.endswith("tokenizer_config.json")))
    weights = load_file(next(path for path in paths if path.endswith(".safetensors")))
    vectors = next(iter(weights.values())).astype(np.float32)

    def embed(texts: list[str]) -> np.ndarray:
        encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
        return np.stack([vectors[tokens.ids or [0]].mean(axis=0) for tokens in encoded])

    return CallableBackbone(embed, fingerprint="wordllama")


def error(run: Run, rows: Any, method: str, scaled: bool) -> float:
    """Return the per cent of test rows that a student gets wrong."""
    student = run.student(transfer=method, module__start="minilm")
    if scaled:
        student.fit(rows, run.labels)
    else:
        student.fit(run.rows, run.labels, features=np.asarray(rows))
    return 100 * float(np.mean(student.predict(run.test_rows) != run.test_labels))


def print_table(lines: list[dict[str, Any]]) -> None:
    """Print mean errors, and the mean difference with its standard error."""
    for task, method in product(TASKS, METHODS):
        with_scale, without = (
            np.array([x["error"] for x in lines if (x["task"], x["method"], x["scaled"]) == key])
            for key in ((task, method, True), (task, method, False))
        )
        n_seeds = min(len(with_scale), len(without))
        if n_seeds > 1:
            difference = with_scale[:n_seeds] - without[:n_seeds]
            print(
                f"{task} {method}: one scale {with_scale.mean():.1f}, as they are "
                f"{without.mean():.1f}, difference {difference.mean():+.1f} +- "
                f"{difference.std(ddof=1) / n_seeds**0.5:.1f} ({n_seeds})"
            )


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="directory of the data sets; default: SK_AFT_DATA")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, default: 3")
    parser.add_argument("--print", action="store_true", help="only print what is there")
    options = parser.parse_args()

    def known_lines() -> list[dict[str, Any]]:
        lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
        return [json.loads(line) for line in lines]

    done = {(x["task"], x["seed"], x["method"], x["scaled"]) for x in known_lines()}
    seeds = range(_FIRST_SEED, _FIRST_SEED + options.seeds)
    for seed, task in [] if options.print else product(seeds, TASKS):
        wanted = [key for key in product(METHODS, SCALES) if (task, seed, *key) not in done]
        if not wanted:
            continue
        run = read(task, options.data, seed)
        rows = FoundationFeatureExtractor(["minilm", wordllama()]).fit_transform(run.rows)
        for method, scaled in wanted:
            line = {"task": task, "seed": seed, "method": method, "scaled": scaled}
            line["error"] = round(error(run, rows, method, scaled), 2)
            with RESULTS.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
    print_table(known_lines())


if __name__ == "__main__":
    main()
