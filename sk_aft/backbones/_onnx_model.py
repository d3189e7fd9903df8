"""Foundation models in ONNX files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn.functional import pad

from sk_aft._data._rows import Rows
from sk_aft.backbones._base import Backbone, FeatureShapeError, LoadedOnDemand
from sk_aft.backbones._fingerprint import directory_digest
from sk_aft.backbones._image import ImageBackbone, pil_image
from sk_aft.backbones._licences import licence_of_files
from sk_aft.backbones._network import Network
from sk_aft.backbones._onnx import Inputs, OnnxSession
from sk_aft.backbones._onnx_graph import (
    Graph,
    Port,
    kind_of,
    output_of,
    read_graph,
    token_inputs,
)
from sk_aft.backbones._pixel_reader import beside, pixel_reader
from sk_aft.backbones._tokens import INPUTS, embed_texts, truncation_note

_POOLINGS = ("mean", "cls")
_TABLE_ROWS_PER_CORE = 1024
_TEXTS = 128
# Of the padding, where the tokenizer does not say it.
_PAD_TOKENS = ("[PAD]", "<pad>", "<|endoftext|>", "</s>")


class OnnxBackbone(Backbone):
    """A model in an ONNX file, which reads numbers, images or texts.

    What it reads follows from its inputs: one 2-D input of floats reads numbers, one 4-D input
    images, and the integers input_ids and attention_mask texts. It runs in ONNX Runtime on the
    CPU. It is the extra ``onnx``.

    Parameters
    ----------
    path : str or path-like
        The file. Files with external weights have to be where the model says.
    output_name : str, optional
        The output with the features, (n, d), or (n, n_tokens, d), which is pooled. Default: the
        only one, or "sentence_embedding" or "pooler_output" among several.
    pooling : {"mean", "cls"}, default="mean"
        How an output with a vector for each token is pooled: the mean over the tokens of the
        attention mask, or the first token.
    input_names : mapping of str to str, optional
        Of a text model: names of its inputs by "input_ids", "attention_mask" and
        "token_type_ids", if they differ from these.
    tokenizer : str or path-like, optional
        Of a text model: its ``tokenizer.json``. Default: the file of this name in the model's
        folder, or one folder up.
    max_length : int, default=256
        Of a text model: texts are truncated to this number of tokens, with a warning.
    image_size : int or (int, int), optional
        Of an image model: height and width that images are resized to. Default: the model's own,
        or that of a ``preprocessor_config.json`` in its folder or one folder up.
    mean, std : float or sequence of float, optional
        Of an image model that reads floats: mean and standard deviation of the channels of pixels
        between 0 and 1. Default: those of ``preprocessor_config.json``.

    Raises
    ------
    ImportError
        If the extra ``onnx`` is not installed.
    ValueError
        If the file is no ONNX model, or what it reads or returns cannot be used. The message
        lists its inputs and outputs.

    Notes
    -----
    A model that was exported with a batch of one row runs row by row, which is slower.

    Examples
    --------
    >>> from sk_aft.backbones import OnnxBackbone
    >>> OnnxBackbone("missing.onnx")
    Traceback (most recent call last):
    ...
    ValueError: There is no ONNX file 'missing.onnx': expected the path of a file.
    """

    runs_in_torch = False

    def __init__(
        self,
        path: Any,
        *,
        output_name: str | None = None,
        pooling: str = "mean",
        input_names: Mapping[str, str] | None = None,
        tokenizer: Any = None,
        max_length: int = 256,
        image_size: int | tuple[int, int] | None = None,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
    ) -> None:
        if pooling not in _POOLINGS:
            raise ValueError(f"pooling={pooling!r}: expected one of {list(_POOLINGS)}.")
        graph = read_graph(str(path))
        names = dict(input_names or {})
        kind = kind_of(graph, names)
        features = _Features(graph, output_of(graph, output_name), pooling)
        self._model: _OnnxModel
        if kind == "text":
            file = _tokenizer_file(graph, tokenizer)
            self._model = _OnnxTexts(features, token_inputs(graph, names), file, max_length)
        elif kind == "image":
            reader = pixel_reader(graph, image_size=image_size, mean=mean, std=std)
            self._model = _OnnxImages(features, reader)
        else:
            self._model = _OnnxTable(features)
        self.path = str(path)
        self.name = self._model.name
        self.kind = kind
        self.batch_size = self._model.batch_size

    def fingerprint(self) -> dict[str, Any]:
        """Return digests of the files, and how rows are read and pooled."""
        return self._model.fingerprint()

    @property
    def licence(self) -> str | None:
        """What the model card beside the file, or one folder up, says."""
        card = beside(self.path, "README.md")
        return None if card is None else licence_of_files(str(card.parent))

    @property
    def n_features_out(self) -> int | None:
        """Length of the last axis of the output, if it is fixed."""
        return self._model.features.output.shape[-1]

    def check_rows(self, rows: Rows, names: Any) -> None:
        """Raise if a table has another number of columns, or if images are not pictures."""
        self._model.check_rows(rows, names)

    def prepare(self, device: torch.device) -> None:
        """Load the model and its tokenizer."""
        self._model.prepare(device)

    def embed(self, rows: Rows, *, batch_size: int, device: torch.device) -> np.ndarray:
        """Return the features; the model runs on the CPU."""
        return self._model.embed(rows, batch_size=batch_size, device=device)

    def note(self, rows: Rows) -> str | None:
        """Say how many texts were truncated."""
        return self._model.note(rows)

    def unload(self) -> None:
        """Free the model's memory; the next `embed` loads it again."""
        self._model.unload()


class _Features:
    """The output of a graph, and how it becomes one vector for each row."""

    def __init__(self, graph: Graph, output: Port, pooling: str) -> None:
        self.graph = graph
        self.output = output
        self.pooling = pooling if len(output.shape) == 3 else None

    def fingerprint(self) -> dict[str, Any]:
        return {
            "type": "onnx",
            "files": [directory_digest(file) for file in self.graph.files],
            "output": self.output.name,
            "pooling": self.pooling,
        }

    def network(self, inputs: Sequence[Port], n_tokens: int | None = None) -> Network:
        """Return a network that runs the file; its tensors are those of ``inputs``.

        Tokens are padded to ``n_tokens`` if it is given.
        """
        network = Network(nn.Identity(), torch.device("cpu"), n_rows_worth_export=0)
        network.session = _Session(self, inputs, n_tokens)
        return network


class _Session(OnnxSession):
    """A file in ONNX Runtime, which returns one vector for each row."""

    def __init__(
        self, features: _Features, inputs: Sequence[Port], n_tokens: int | None = None
    ) -> None:
        super().__init__(features.graph.path)
        self._n_tokens = n_tokens
        self._names = [port.name for port in inputs]
        self._outputs = [features.output.name]
        self._dtypes = [getattr(torch, port.dtype) for port in inputs]
        self._pooling = features.pooling
        self._is_single = any(port.shape[0] == 1 for port in inputs)
        self._file = features.graph.path

    def __call__(self, inputs: Inputs) -> np.ndarray:
        n_rows = len(inputs[0])
        step = 1 if self._is_single else n_rows
        parts = [
            self._run(tuple(tensor[start : start + step] for tensor in inputs))
            for start in range(0, n_rows, step)
        ]
        return np.concatenate(parts)

    def _run(self, inputs: Inputs) -> np.ndarray:
        typed = [tensor.to(dtype) for tensor, dtype in zip(inputs, self._dtypes, strict=True)]
        if self._n_tokens is not None:
            # Zeros of the attention mask, so the other inputs do not matter.
            typed = [pad(tensor, (0, self._n_tokens - tensor.shape[1])) for tensor in typed]
        (features,) = self.outputs(tuple(typed))
        if self._pooling is not None and features.ndim == 3:
            features = _pooled(features, typed[1:2], self._pooling)
        if features.ndim != 2 or len(features) != len(inputs[0]):
            raise FeatureShapeError(
                f"{self._file!r} returned {self._outputs[0]!r} of shape {features.shape} for "
                f"{len(inputs[0])} rows: expected ({len(inputs[0])}, d)."
            )
        return features.astype(np.float32, copy=False)


def _pooled(states: np.ndarray, mask: Sequence[torch.Tensor], pooling: str) -> np.ndarray:
    """Pool (n, n_tokens, d) over the tokens of a mask, or over all if there is none."""
    states = states.astype(np.float32, copy=False)
    if pooling == "cls":
        return states[:, 0]
    if not mask:
        return states.mean(axis=1)
    weights = mask[0].numpy().astype(np.float32)[:, :, None]
    return (states * weights).sum(axis=1) / weights.sum(axis=1).clip(min=1)


class _OnnxModel(LoadedOnDemand):
    """What one kind of rows needs."""

    def __init__(self, features: _Features) -> None:
        self.features = features
        self.name = _name(features.graph.path)

    def fingerprint(self) -> dict[str, Any]:
        return {**self.features.fingerprint(), **self.settings()}

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return how rows are read, as JSON-serialisable values."""


class _OnnxTable(_OnnxModel):
    kind = "numeric"
    batch_size = 4096

    def settings(self) -> dict[str, Any]:
        return {"reads": "numbers"}

    def load(self, device: torch.device) -> Network:
        del device
        return self.features.network(self.features.graph.inputs)

    def check_rows(self, rows: Rows, names: Any) -> None:
        del names
        expected, n_columns = self.features.graph.inputs[0].shape[1], rows.values.shape[1]
        if expected not in (None, n_columns):
            raise ValueError(
                f"{self.features.graph.path!r} reads rows of {expected} numbers, but X has "
                f"{n_columns} columns: give the columns that the model was trained on."
            )

    def embed(self, rows: Rows, *, batch_size: int, device: torch.device) -> np.ndarray:
        step = min(batch_size, _TABLE_ROWS_PER_CORE)
        values = np.asarray(rows.values, dtype=np.float64)
        batches = (
            (torch.from_numpy(values[start : start + step]),)
            for start in range(0, len(values), step)
        )
        return np.concatenate(list(self.loaded(device).run(batches)))


class _OnnxImages(_OnnxModel, ImageBackbone):
    kind = "image"

    def __init__(self, features: _Features, reader: Any) -> None:
        super().__init__(features)
        self.reader = reader

    def settings(self) -> dict[str, Any]:
        return {"reads": "images", **self.reader.settings()}

    def load(self, device: torch.device) -> Network:
        del device
        return self.features.network(self.features.graph.inputs)

    def to_tensor(self, rows: Rows, indices: Sequence[int]) -> torch.Tensor:
        for row in indices:
            self.check_array(rows, row)
        return torch.from_numpy(np.stack([self.reader(pil_image(rows, row)) for row in indices]))


class _OnnxTexts(_OnnxModel):
    kind = "text"
    batch_size = _TEXTS

    def __init__(
        self, features: _Features, inputs: Mapping[str, Port], tokenizer: str, max_length: int
    ) -> None:
        super().__init__(features)
        self.inputs = dict(inputs)
        self.tokenizer = tokenizer
        self.n_tokens = self.inputs[INPUTS[0]].shape[1]  # None unless the export fixed it
        self.max_length = min(max_length, self.n_tokens or max_length)

    def settings(self) -> dict[str, Any]:
        return {
            "reads": "texts",
            "tokenizer": directory_digest(self.tokenizer),
            "inputs": {role: port.name for role, port in self.inputs.items()},
            "max_length": self.max_length,
        }

    def load(self, device: torch.device) -> tuple[_TokenizerFile, Network]:
        del device
        tokenizer = _TokenizerFile(self.tokenizer, self.max_length, list(self.inputs))
        return tokenizer, self.features.network(list(self.inputs.values()), self.n_tokens)

    def embed(self, rows: Rows, *, batch_size: int, device: torch.device) -> np.ndarray:
        tokenizer, network = self.loaded(device)
        return embed_texts(network, tokenizer, rows.values, batch_size=batch_size)

    def note(self, rows: Rows) -> str | None:
        if self._loaded is None:
            return None
        tokenizer, _ = self._loaded[1]
        remedy = (
            "raise max_length" if self.n_tokens is None else "export the model with more tokens"
        )
        return truncation_note(rows.values, tokenizer, self.max_length, remedy)


class _TokenizerFile:
    """A ``tokenizer.json``, called as the tokenizers of transformers are."""

    model_input_names = INPUTS

    def __init__(self, path: str, max_length: int, roles: Sequence[str]) -> None:
        self.roles = roles
        self._whole, self._truncated = Tokenizer.from_file(path), Tokenizer.from_file(path)
        self._whole.no_truncation()
        self._whole.no_padding()
        self._truncated.enable_truncation(max_length)
        padding = self._truncated.padding or {}
        token = padding.get("pad_token")
        if token is None:
            known = (name for name in _PAD_TOKENS if self._whole.token_to_id(name) is not None)
            token = next(known, _PAD_TOKENS[0])
        self._truncated.enable_padding(
            pad_id=padding.get("pad_id", self._whole.token_to_id(token) or 0), pad_token=token
        )

    def __call__(self, texts: list[str], *, truncation: bool = True, **_: Any) -> dict[str, Any]:
        """Return token ids and masks: padded tensors, or lists of whole texts."""
        if not truncation:
            whole = self._whole.encode_batch_fast(texts)
            return {"input_ids": [encoding.ids for encoding in whole]}
        encodings = self._truncated.encode_batch_fast(texts)
        values = {
            "input_ids": [encoding.ids for encoding in encodings],
            "attention_mask": [encoding.attention_mask for encoding in encodings],
            "token_type_ids": [encoding.type_ids for encoding in encodings],
        }
        return {role: torch.tensor(values[role]) for role in self.roles}


def _tokenizer_file(graph: Graph, tokenizer: Any) -> str:
    if tokenizer is not None:
        if not Path(tokenizer).is_file():
            raise ValueError(
                f"tokenizer={str(tokenizer)!r} is not a file: expected the path of a "
                "tokenizer.json."
            )
        return str(tokenizer)
    found = beside(graph.path, "tokenizer.json")
    if found is None:
        raise graph.error(
            "reads tokens, but there is no tokenizer.json beside it or one folder up: put it there "
            "(AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER) writes it), or give its "
            "path as tokenizer of OnnxBackbone."
        )
    return str(found)


def _name(path: str) -> str:
    """Return the name of a file, or of the folder of a 'model.onnx'."""
    file = Path(path).absolute()
    parts = [part for part in file.parent.parts if part != "onnx"]
    return parts[-1] if file.stem == "model" and len(parts) > 1 else file.stem
