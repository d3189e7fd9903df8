"""Runs a command: reads its arguments, and turns errors into messages and exit statuses."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sk_aft._command._arguments import PROGRAM, build_parser
from sk_aft._command._messages import CommandError, UsageError, complain

_FAILED, _WRONG_USAGE = 1, 2
# 128 and the number of the signal, as shells count.
_INTERRUPTED, _BROKEN_PIPE = 130, 141
# What the library raises for input that it cannot use. Other errors are ours and show their place.
_BAD_INPUT = (CommandError, ImportError, OSError, ValueError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m sk_aft``.

    Parameters
    ----------
    arguments : sequence of str, optional
        Arguments of the command; default: those of the process.

    Returns
    -------
    status : int
        0, or 1 if the input cannot be used, 2 if the arguments contradict each other, 130 after
        Ctrl+C, 141 if nobody reads the output.

    Raises
    ------
    SystemExit
        With status 2 if the arguments cannot be read, and 0 after ``--help``.
    """
    options = build_parser().parse_args(arguments)
    try:
        with _warnings_in_one_line():
            _run(options)
    except BrokenPipeError:
        # Else Python complains when it closes the standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        complain(_interrupted(options.command))
        return _INTERRUPTED
    except UsageError as error:
        complain(f"{PROGRAM} {options.command}: {error}")
        return _WRONG_USAGE
    except _BAD_INPUT as error:
        complain(f"Error: {error}{_advice(error, options.command)}")
        return _FAILED
    return 0


def _run(options: argparse.Namespace) -> None:
    """Import what a command needs and run it; `predict` imports no PyTorch."""
    if options.command == "predict":
        from sk_aft._command._predict import predict

        return predict(options)
    if options.command in ("compare", "fit"):
        _check_label(options)
        from sk_aft._command._tables import read_training_data

        data = read_training_data(options)  # before PyTorch, which takes seconds, is imported
        if options.command == "fit":
            from sk_aft._command._fit import fit

            return fit(options, data)
        from sk_aft._command._compare import compare

        return compare(options, data)
    from sk_aft._command._demo import demo

    return demo(options)


def _advice(error: Exception, command: str | None) -> str:
    """Return how to install a package that Python alone says is missing."""
    is_plain = isinstance(error, ModuleNotFoundError) and str(error).startswith("No module named")
    if not is_plain or command == "predict":
        return ""
    return f". {command or 'The demonstration'} needs the whole package: pip install 'sk-aft[demo]'"


def _check_label(options: argparse.Namespace) -> None:
    is_folder = Path(options.data).expanduser().is_dir()
    if not is_folder and options.label is None:
        raise UsageError("--label COLUMN is needed: the column that holds the labels.")
    if not is_folder:
        return
    of_tables = ("label", "text", "image", "category", "number", "missing_label")
    given = [name for name in of_tables if getattr(options, name) is not None]
    if given:
        raise UsageError(
            f"--{given[0].replace('_', '-')} names a column, and {options.data} is a folder of "
            "images, whose folders are the labels."
        )
    if options.task == "regression":
        raise UsageError(f"{options.data} is a folder of images by class: --task regression fails.")


def _interrupted(command: str | None) -> str:
    if command == "predict":
        return "Interrupted. No file was written."
    kept = "Features" if command == "fit" else "Scores and features"
    return f"Interrupted. {kept} that were computed are kept: the same command resumes from there."


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Show each warning once, without the line of code that it comes from."""
    shown = set()

    def show(message: Warning | str, *place: Any, **options: Any) -> None:
        del place, options
        if str(message) not in shown:
            shown.add(str(message))
            complain(f"Warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
