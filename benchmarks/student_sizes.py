"""Size against accuracy of the static student of texts, as it is deployed.

    python -m benchmarks.student_sizes

Banking77 with all labels, the student alone; and with 10 labels a class and all other rows without
labels, taught by MiniLM with "probe-kd". Each student is saved as a folder in float32, float16 and
int8, and the test accuracy is that of `sk_aft.serving`. 500 steps, no search. Settings with three
seeds have a standard error, others have one seed. Lines go to
``benchmarks/results/student_sizes.jsonl``, and what is there is not run again; at the end a
Markdown table is printed. Takes five minutes of one core, and
two more if the feature store lacks MiniLM's features.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.text_students import RememberedProbe, Texts, fit, known_rows
from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft.datasets import load_banking77
from sk_aft.serving import load

RESULTS = Path(__file__).parent / "results" / "student_sizes.jsonl"
DTYPES = ("float32", "float16", "int8")
_STEPS = 500


class Size(NamedTuple):
    """What the size of a student depends on, see `sk_aft.modules.StaticText`.

    Parameters
    ----------
    vocab_size, n_vectors, width : int
        Largest number of tokens, number of vectors of tokens and pairs, and their width.
    """

    vocab_size: int = 8192
    n_vectors: int = 16_384
    width: int = 128


# Each with its number of seeds. Banking77 has 3,032 tokens, so 4,096 are the same as 8,192.
SIZES = {
    Size(width=256): 1,
    Size(): 3,
    Size(width=64): 3,
    Size(width=32): 1,
    Size(n_vectors=8192): 3,
    Size(n_vectors=4096): 1,
    Size(vocab_size=2048, n_vectors=8192): 1,
    Size(vocab_size=2048, n_vectors=4096): 1,
    Size(vocab_size=1024, n_vectors=4096): 1,
    Size(n_vectors=8192, width=64): 3,
    Size(vocab_size=1024, n_vectors=2048, width=32): 1,
}
# The labels that are known of each class, and how the student is taught.
TASKS: dict[str, dict[str, Any]] = {"all": {"beta": 0}, "10": {"transfer": RememberedProbe()}}


def read() -> Texts:
    """Return Banking77 with the features of MiniLM; labels are numbers."""
    texts, intents = load_banking77(return_X_y=True)
    test_texts, test_intents = load_banking77(subset="test", return_X_y=True)
    names = np.unique(intents)
    labels, test_labels = (np.searchsorted(names, of) for of in (intents, test_intents))
    features = FoundationFeatureExtractor("minilm", verbose=1).fit_transform(texts).features
    rows, test_rows = (np.array(some, dtype=object) for some in (texts, test_texts))
    return Texts(rows, labels, np.array(features), test_rows, test_labels)


def measure(data: Texts, size: Size, per_class: str, n_seeds: int) -> dict[str, Any]:
    """Return megabytes and accuracies in per cent of a student, in each number format."""
    parameters = {
        **TASKS[per_class],
        "module__start": "minilm",
        "module__n_vectors": size.n_vectors,
        "module__width": size.width,
        "preprocessor__vocab_size": size.vocab_size,
    }
    found: dict[str, Any] = {"megabytes": {}, "accuracies": {dtype: [] for dtype in DTYPES}}
    for seed in range(n_seeds):
        known = known_rows(data.labels, per_class, seed)
        student = fit(data, known, np.arange(0), parameters, _STEPS, seed)
        for dtype in DTYPES:
            megabytes, accuracy = deployed(student, dtype, data)
            found["megabytes"][dtype] = round(megabytes, 2)
            found["accuracies"][dtype].append(round(100 * accuracy, 2))
    return found


def deployed(student: AFTClassifier, dtype: str, data: Texts) -> tuple[float, float]:
    """Return megabytes and test accuracy of a saved student."""
    with tempfile.TemporaryDirectory() as directory:
        student.save_pretrained(directory, dtype=dtype)
        n_bytes = sum(path.stat().st_size for path in Path(directory).rglob("*") if path.is_file())
        labels = load(directory).predict(data.test_texts)
    return n_bytes / 1e6, float(np.mean(labels == data.test_labels))


def table(lines: list[dict[str, Any]]) -> str:
    """Return sizes and accuracies as Markdown."""
    of = {(Size(*line["size"]), line["labels"]): line for line in lines}
    rows = [
        "| tokens at most | vectors | width | MB | all labels, % | in float16, int8 "
        "| 10 labels a class, % | in float16, int8 |",
        "|---" * 8 + "|",
    ]
    for size in SIZES:
        found = [of[size, per_class] for per_class in TASKS if (size, per_class) in of]
        if found:
            sizes = ", ".join(f"{found[0]['megabytes'][dtype]:.1f}" for dtype in DTYPES)
            scores = [cell for line in found for cell in _of(line)]
            rows.append(f"| {' | '.join([*map('{:,}'.format, size), sizes, *scores])} |")
    return "\n".join(rows)


def _of(line: dict[str, Any]) -> tuple[str, str]:
    values = line["accuracies"]["float32"]
    error = f" ± {np.std(values, ddof=1) / len(values) ** 0.5:.1f}" if len(values) > 1 else ""
    smaller = ", ".join(f"{np.mean(line['accuracies'][dtype]):.1f}" for dtype in DTYPES[1:])
    return f"{np.mean(values):.1f}{error}", smaller


def main() -> None:
    """Run what is missing, and print the table."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    torch.set_num_threads(1)
    lines = [json.loads(line) for line in RESULTS.open()] if RESULTS.exists() else []
    done = {(Size(*line["size"]), line["labels"]) for line in lines}
    missing = [one for one in product(TASKS, SIZES) if one[::-1] not in done]
    data = read() if missing else None
    for per_class, size in missing:
        line = {"labels": per_class, "size": size}
        line |= measure(data, size, per_class, SIZES[size])
        lines.append(line)
        with RESULTS.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(line, flush=True)
    print(table(lines))


if __name__ == "__main__":
    main()
