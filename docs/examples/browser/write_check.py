"""Write predictions of Python, with which the page compares its own.

    python write_check.py FOLDER ROWS check.json

FOLDER holds the student; ROWS is a file with one text a line, or one path of an image, as the page
loads it. At most 32 of them are predicted, chosen as ``export_onnx`` chooses the rows of
``parity.json``. The result holds the texts, so it should not be published if they are private.
"""

import json
import sys
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from sk_aft.serving import load


def check_of(folder: Path, rows: list[str]) -> dict:
    """Return rows with their predictions and, of texts, their tokens."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    is_text = config["rows"]["kind"] == "text"
    probabilities = load(folder).predict_proba(rows if is_text else list(map(Path, rows)))
    check = {
        "identity": config["identity"],
        "rows": rows,
        "probabilities": probabilities.tolist(),
    }
    if is_text:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(config["preprocessor"]["state"]["max_length"])
        check["tokens"] = [encoding.ids for encoding in tokenizer.encode_batch(rows)]
    return check


if __name__ == "__main__":
    folder, rows_file, written = map(Path, sys.argv[1:])
    lines = rows_file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    places = np.unique(np.linspace(0, len(lines) - 1, 32).astype(int))
    check = check_of(folder, [lines[place] for place in places])
    written.write_text(json.dumps(check), encoding="utf-8")
