"""The arguments of ``python -m sk_aft`` and their help."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

PROGRAM = "python -m sk_aft"

_EXAMPLES = """\
examples:
  python -m sk_aft                      what a student gains, on data in the package (3 minutes)
  python -m sk_aft images               the same with pictures (5 minutes)
  python -m sk_aft compare data.csv --text review --label stars --out report/
  python -m sk_aft compare pictures/ --unlabeled more_pictures/ --out report/
  python -m sk_aft fit data.csv --text review --label stars --unlabeled more.parquet --out model/
  python -m sk_aft predict model/ new.csv --out predictions.csv

python -m sk_aft COMMAND --help explains a command.
"""
_FORMATS = (
    "a CSV file (separated by commas, semicolons or tabs), a Parquet file (.parquet), JSON lines "
    "(.jsonl, .ndjson), or a folder with a folder of images for each class"
)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)?")
_SECONDS = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3600}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Train a small network that learns from a foundation model, and deploy it "
        "alone. Without a command: a comparison on data that ship with the package.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_demo_options(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_compare(commands)
    _add_fit(commands)
    _add_predict(commands)
    images = commands.add_parser(
        "images",
        help="the comparison on pictures that ship with the package",
        description="Compare students and rivals on Fashion-MNIST, which ships with the package.",
    )
    _add_demo_options(images)
    return parser


def _add_demo_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("sk_aft_report"),
        metavar="FOLDER",
        help="where the report goes (default: sk_aft_report)",
    )
    parser.add_argument("--quiet", action="store_true", help="print results only")


def _add_compare(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "compare",
        help="find out what transfer is worth on your data",
        description="Score students, probes and models that only fit your rows on the same folds, "
        "with what each costs to deploy. Writes a page with a table and a plot.",
    )
    _add_data(parser)
    _add_kinds(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="where the report goes"
    )
    _add_teachers(parser)
    parser.add_argument(
        "--student",
        action="append",
        metavar="NAME",
        help="compare a student with this network, too, such as minilm; repeatable",
    )
    parser.add_argument(
        "--candidates",
        type=_names,
        metavar="A,B",
        help="compare these only, such as tf-idf,probe,student; auto stands for the usual ones",
    )
    parser.add_argument(
        "--cv", type=_at_least_two, default=5, metavar="N", help="number of folds (default: 5)"
    )
    parser.add_argument(
        "--scoring", metavar="NAME", help="a scorer of scikit-learn (default: accuracy, or r2)"
    )
    parser.add_argument(
        "--time-budget",
        type=duration,
        metavar="TIME",
        help="leave out what does not fit into this time: seconds, or 10m, 1.5h",
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="folds that are fitted at a time (default: 1)"
    )
    _add_common(parser)


def _add_fit(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "fit",
        help="train a student and save it for deployment",
        description="Train a student that learns from labels and from a foundation model, and "
        "save the folder that predicts without either.",
    )
    _add_data(parser)
    _add_kinds(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="where the student is saved"
    )
    _add_teachers(parser)
    parser.add_argument(
        "--fine-tune", action="store_true", help="fine-tune the teacher on the labels first"
    )
    parser.add_argument(
        "--student",
        default="auto",
        metavar="NAME",
        help="the network: auto (default), minilm, effnet-lite2, st:NAME, timm:NAME, ...",
    )
    test = parser.add_mutually_exclusive_group()
    test.add_argument("--test", metavar="FILE", help="rows with labels to score the student on")
    test.add_argument(
        "--test-fraction",
        type=_share,
        metavar="SHARE",
        help="score on this share of the labelled rows, such as 0.2; they are not trained on",
    )
    parser.add_argument(
        "--dtype",
        choices=["float32", "float16", "int8"],
        default="float32",
        help="number format of what is saved (default: float32); float16 halves its size",
    )
    parser.add_argument(
        "--max-epochs",
        type=_positive,
        metavar="N",
        help="passes over the training rows (default: the network's own number)",
    )
    _add_common(parser)


def _add_predict(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "predict",
        help="predict the rows of a file with a saved student",
        description="Predict the rows of a file of any size with a saved student. It needs numpy "
        "and tokenizers, for some students onnxruntime and pillow, and pyarrow for Parquet.",
    )
    parser.add_argument("model", metavar="MODEL", help="folder of the student, or owner/name")
    parser.add_argument("data", metavar="DATA", help=f"{_FORMATS}; or any folder of images")
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="file to write, .csv, .tsv or .jsonl; - writes CSV to the standard output",
    )
    column = parser.add_mutually_exclusive_group()
    column.add_argument("--text", metavar="COLUMN", help="column that holds the texts")
    column.add_argument("--image", metavar="COLUMN", help="column that holds paths of images")
    parser.add_argument(
        "--keep",
        nargs="*",
        metavar="COLUMN",
        help="columns of the file to copy (default: all); without a name, none",
    )
    parser.add_argument(
        "--probabilities", action="store_true", help="write the probability of each class, too"
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing")


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help=_FORMATS)
    parser.add_argument("--label", metavar="COLUMN", help="column of the labels; not for folders")
    parser.add_argument(
        "--unlabeled", metavar="FILE", help="further rows without a label, or a folder of images"
    )
    parser.add_argument(
        "--missing-label",
        metavar="VALUE",
        help="marks rows without a label; those with an empty cell have none, too",
    )
    parser.add_argument(
        "--task",
        choices=["auto", "classification", "regression"],
        default="auto",
        help="what the labels are (default: auto, which is classes)",
    )


def _add_kinds(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_argument_group(
        "columns to read (default: all but the label, by what they hold); all repeatable"
    )
    kinds.add_argument("--text", action="append", metavar="COLUMN", help="texts")
    kinds.add_argument(
        "--image", action="append", metavar="COLUMN", help="paths of images, relative to the file"
    )
    kinds.add_argument("--category", action="append", metavar="COLUMN", help="categories")
    kinds.add_argument("--number", action="append", metavar="COLUMN", help="numbers")


def _add_teachers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--teacher",
        action="append",
        metavar="NAME",
        help="a foundation model, such as minilm, effnet-lite2 or st:NAME; repeatable (default: "
        "minilm for texts, effnet-lite2 for images, gradient boosting for other tables)",
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="random state (default: 0)"
    )
    parser.add_argument("--quiet", action="store_true", help="print results only")


def duration(text: str) -> float:
    """Return a time in seconds: "90", "90s", "10m" or "1.5h"."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 600, 10m or 1.5h")
    return float(match[1]) * _SECONDS[match[2]]


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("no name is given")
    return names


def _positive(text: str) -> int:
    return _whole_number(text, 1)


def _at_least_two(text: str) -> int:
    return _whole_number(text, 2)


def _whole_number(text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least {least}")
    return number


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number between 0 and 1")
    return share
