"""Write predictions of Python, with which the page compares its own.

    python write_check.py FOLDER TEXTS check.json

FOLDER holds the student; TEXTS is a file with one text a line. At most 32 of them are predicted,
chosen as ``export_onnx`` chooses the rows of ``parity.json``. The result holds these texts, so it
should not be published if they are private.
"""

import json
import sys
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from sk_aft.serving import load

folder, texts_file, written = map(Path, sys.argv[1:])
lines = texts_file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
texts = [lines[i] for i in np.unique(np.linspace(0, len(lines) - 1, 32).astype(int))]
config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
tokenizer.no_padding()
tokenizer.enable_truncation(config["preprocessor"]["state"]["max_length"])

check = {
    "identity": config["identity"],
    "texts": texts,
    "tokens": [encoding.ids for encoding in tokenizer.encode_batch(texts)],
    "probabilities": load(folder).predict_proba(texts).tolist(),
}
written.write_text(json.dumps(check), encoding="utf-8")
