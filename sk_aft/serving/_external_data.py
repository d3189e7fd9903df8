"""Whether the tensors of an ONNX graph lie in other files; needs no package.

ONNX Runtime would read them, and older versions read files outside of the graph's folder.
"""

from __future__ import annotations

from collections.abc import Iterator

# Numbers of the fields by which tensors are reached, and the messages that these fields hold.
FIELDS = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {},
}
EXTERNAL_DATA, DATA_LOCATION = 13, 14  # fields of a TensorProto
_VARINT, _LENGTH_DELIMITED = 0, 2  # types of a field
_N_BYTES = {1: 8, 5: 4}  # of the types of fixed length
_MOST_BYTES = 10  # of a varint


def has_external_data(model: bytes) -> bool:
    """Return whether a tensor of a serialised `onnx.ModelProto` lies in another file.

    Parameters
    ----------
    model : bytes
        Content of the file.

    Raises
    ------
    ValueError
        If the content is not in the format of protocol buffers.
    """
    remaining = [("ModelProto", 0, len(model))]
    while remaining:
        message, start, stop = remaining.pop()
        for field, value, end in _fields(model, start, stop):
            if message == "TensorProto" and (
                field == EXTERNAL_DATA or (field == DATA_LOCATION and value != 0)
            ):
                return True
            inner = FIELDS[message].get(field)
            if inner is not None and end is not None:
                remaining.append((inner, value, end))
    return False


def _fields(content: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int | None]]:
    """Yield the number of each field, and its value and None, or its start and its end."""
    while start < stop:
        key, start = _varint(content, start, stop)
        if key >= 1 << 32:
            raise ValueError("it holds a field of an unknown number")
        field, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, start = _varint(content, start, stop)
            yield field, value, None
            continue
        if kind == _LENGTH_DELIMITED:
            length, start = _varint(content, start, stop)
        elif kind in _N_BYTES:
            length = _N_BYTES[kind]
        else:
            raise ValueError("it holds a field of an unknown type")
        end = start + length
        if end > stop:
            raise ValueError("it is cut off")
        if kind == _LENGTH_DELIMITED:
            yield field, start, end
        start = end


def _varint(content: bytes, start: int, stop: int) -> tuple[int, int]:
    """Return a number that is stored in groups of 7 bits, and where the next begins."""
    value = 0
    for n_bytes in range(min(_MOST_BYTES, stop - start)):
        byte = content[start + n_bytes]
        value |= (byte & 127) << (7 * n_bytes)
        if byte < 128:
            return value, start + n_bytes + 1
    raise ValueError("it is cut off")
