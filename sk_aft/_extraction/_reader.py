"""What a model reads of the rows, and the fingerprint of the model for rows of such a kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from sk_aft._data._rows import Rows, as_rows
from sk_aft.backbones import Backbone
from sk_aft.backbones._layers import LayersOfModel
from sk_aft.backbones._precision import InHalfPrecision
from sk_aft.exceptions import SeveralKindsError


class Reader(NamedTuple):
    """A backbone and the part of the rows that it reads.

    Parameters
    ----------
    backbone : Backbone
        The model.
    column : object, optional
        The column of a DataFrame that it reads, or a tuple of columns; default: whole rows.
    kind : {"text", "pair", "image", "numeric"}, optional
        The kind of rows that it reads; default: the backbone's, or else found from the rows.
    layers : tuple of int, default=()
        Its layers that are computed and stored side by side; empty for its own output alone.
    shown : slice, default=slice(None)
        Which of these columns are features; `FoundationFeatures.teacher_features` has all.
    precision : {"float32", "bfloat16", "float16"}, default="float32"
        Numbers that the model computes with, if it runs in PyTorch.
    """

    backbone: Backbone
    column: Any = None
    kind: str | None = None
    layers: tuple[int, ...] = ()
    shown: slice = slice(None)
    precision: str = "float32"

    @property
    def model(self) -> Backbone:
        """What computes the stored columns."""
        model = LayersOfModel(self.backbone, self.layers) if self.layers else self.backbone
        if self.precision == "float32" or not self.backbone.runs_in_torch:
            return model
        return InHalfPrecision(model, self.precision, self.backbone)

    def rows(self, rows: Rows) -> Rows:
        """Return the part of the rows that the model reads, checked; categories as texts."""
        kind = self.kind or self.backbone.kind
        is_tuple = isinstance(self.column, tuple) and len(self.column) > 1
        if is_tuple and (kind in ("text", "image") or (kind is None and self._are_single(rows))):
            check_reads_pair(self.backbone, self.column)
            kind = "pair"
        with _naming(self.backbone):
            if self.column is not None:
                rows = rows.column(self.column, kind=kind, missing=True)
            elif rows.kind == "frame":
                rows = as_rows(rows.values, kind=kind, missing=True)
            elif kind is not None:
                rows = rows.read_as(kind)
            return rows.read_as("text") if rows.kind == "category" else rows

    def _are_single(self, rows: Rows) -> bool:
        """Return whether columns hold texts or images, of which each makes rows of its own."""
        with suppress(ValueError):
            rows.column(self.column, missing=True)
            return False
        kinds = {rows.column(name, missing=True).kind for name in self.column}
        return bool(kinds & {"text", "image"})


@contextmanager
def _naming(backbone: Backbone) -> Iterator[None]:
    """Prepend the name of a model to the message of an error about its rows."""
    try:
        yield
    except SeveralKindsError:
        raise
    except ValueError as error:
        raise ValueError(f"Model {backbone.name!r}: {error}") from error


def check_reads_pair(backbone: Backbone, columns: tuple) -> None:
    """Raise ValueError unless a text model can read the texts of these columns together."""
    if backbone.reads_pairs and len(columns) == 2:
        return
    single = {"text": "single texts", "image": "single images", None: "single texts or images"}
    reads = "a text or a pair of texts" if backbone.reads_pairs else single[backbone.kind]
    pairs = "" if backbone.reads_pairs else _how_to_read_pairs(backbone)
    each = ", ".join(f"{column!r}: ..." for column in columns)
    raise ValueError(
        f"Model {backbone.name!r} reads {reads}, but it was given the {len(columns)} columns "
        f"{columns}: give each column a model of its own, as in model={{{each}}}.{pairs}"
    )


def _how_to_read_pairs(backbone: Backbone) -> str:
    directory = Path(getattr(backbone, "name_or_path", ""))
    is_users = backbone.kind == "text" and backbone.name == directory.name
    if is_users and (directory / "config.json").is_file():
        return (
            " To read pairs with the transformer in this directory of sentence-transformers, write "
            f"'hf:{directory}'."
        )
    return " Text models of transformers ('hf:NAME') read pairs."


def model_fingerprint(backbone: Backbone, rows: Rows) -> dict[str, Any]:
    """Return the fingerprint under which a model's features of such rows are kept.

    The number of features may depend on a table's number of columns, so it is included.
    """
    fingerprint = dict(backbone.fingerprint())
    if rows.kind == "numeric":
        fingerprint["n_columns"] = rows.values.shape[1]
    return fingerprint


def agreed_kinds(readers: Sequence[Reader]) -> dict[Any, str]:
    """Return, by column, the kind that its models read, if they agree on one."""
    kinds: dict[Any, set] = {}
    for reader in readers:
        kinds.setdefault(reader.column, set()).add(reader.backbone.kind)
    return {
        column: kind
        for column, (kind, *others) in kinds.items()
        if kind in ("text", "image") and not others
    }
