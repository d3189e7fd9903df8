"""What an ONNX file reads and returns, found without loading its weights into a session."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sk_aft._optional import import_optional
from sk_aft.backbones._tokens import INPUTS

FLOATS = ("float32", "float64", "float16")
_INTEGERS = ("int64", "int32")
# Outputs of common exports that are one vector per row, the best first.
_VECTORS = ("sentence_embedding", "pooler_output")


class Port(NamedTuple):
    """An input or an output of a graph.

    Parameters
    ----------
    name : str
        Its name.
    dtype : str
        Its type in NumPy's spelling.
    shape : tuple of int or None
        Lengths of its axes, None where they may vary.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        axes = ", ".join("?" if length is None else str(length) for length in self.shape)
        return f"{self.name!r} ({self.dtype}, shape ({axes}))"


class Graph(NamedTuple):
    """The inputs and outputs of an ONNX file.

    Parameters
    ----------
    path : str
        The file.
    inputs, outputs : tuple of Port
        What it reads and returns.
    files : tuple of str
        The file and those with its external weights, wherever a tensor may be: also in attributes
        of nodes, in subgraphs and in functions.
    """

    path: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    files: tuple[str, ...]

    def error(self, fault: str) -> ValueError:
        """Return an error that says what the file reads and returns."""
        reads, returns = (", ".join(map(str, ports)) for ports in (self.inputs, self.outputs))
        return ValueError(f"{self.path!r} {fault} It reads {reads} and returns {returns}.")


def read_graph(path: str) -> Graph:
    """Read the inputs and outputs of an ONNX file.

    Raises
    ------
    ImportError
        If the extra ``onnx`` is not installed.
    ValueError
        If there is no such file, it is no ONNX model, or its external weights are missing or
        outside its folder.
    """
    purpose = "models as ONNX files"
    onnx = import_optional("onnx", extra="onnx", purpose=purpose)
    import_optional("onnxruntime", extra="onnx", purpose=purpose)
    if not Path(path).is_file():
        is_directory = Path(path).is_dir()
        found = sorted(Path(path).rglob("*.onnx"))[:5] if is_directory else []
        hint = f" It is a directory: give one of {[str(file) for file in found]}." if found else ""
        raise ValueError(f"There is no ONNX file {path!r}: expected the path of a file.{hint}")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # parsers of protobuf raise errors of several types
        raise ValueError(f"{path!r} is not an ONNX model: {error}") from error
    if not model.graph.node or not model.graph.output:
        raise ValueError(f"{path!r} is not an ONNX model: it holds no graph.")
    weights = {tensor.name for tensor in model.graph.initializer}
    graph = Graph(
        path,
        tuple(_port(onnx, value) for value in model.graph.input if value.name not in weights),
        tuple(_port(onnx, value) for value in model.graph.output),
        (path, *_external_files(onnx, model, path)),
    )
    missing = [file for file in graph.files if not Path(file).is_file()]
    if missing:
        raise ValueError(
            f"{path!r} keeps its weights in {missing[0]!r}, which does not exist: put the files "
            "that were exported together into one directory."
        )
    return graph


def _port(onnx: Any, value: Any) -> Port:
    tensor = value.type.tensor_type
    try:
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    except KeyError:
        dtype = "unknown"
    axes = tensor.shape.dim
    lengths = (axis.dim_value if axis.HasField("dim_value") else None for axis in axes)
    return Port(value.name, dtype, tuple(length or None for length in lengths))


def _external_files(onnx: Any, model: Any, path: str) -> list[str]:
    locations = {
        entry.value
        for tensor in _parts(model, onnx.TensorProto)
        if onnx.external_data_helper.uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for location in sorted(locations):
        if Path(location).anchor or ".." in Path(location).parts:
            raise ValueError(
                f"{path!r} keeps its weights in {location!r}, outside its folder: expected a path "
                "below the folder. Load it with onnx.load and save it again with "
                "onnx.save_model(..., save_as_external_data=True)."
            )
    return [str(Path(path).parent / location) for location in sorted(locations)]


def _parts(message: Any, kind: type) -> Iterator[Any]:
    """Yield every message of a kind that is anywhere in another one."""
    if isinstance(message, kind):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _parts(part, kind)


def kind_of(graph: Graph, input_names: Mapping[str, str]) -> str:
    """Return the kind of rows that a graph reads.

    Parameters
    ----------
    graph : Graph
        The graph.
    input_names : mapping of str to str
        The names of inputs for tokens, by those of `INPUTS`.

    Returns
    -------
    kind : {"text", "image", "numeric"}
        Texts for tokens, images for a 4-D input, numbers for a 2-D input.

    Raises
    ------
    ValueError
        If the inputs are others; the message lists them.
    """
    unknown = [name for name in input_names if name not in INPUTS]
    if unknown:
        raise ValueError(f"input_names has {unknown[0]!r}: expected some of {list(INPUTS)}.")
    names = [port.name for port in graph.inputs]
    for role, name in input_names.items():
        if name not in names:
            raise graph.error(f"has no input {name!r} (input_names[{role!r}]): it has {names}.")
    fixed = {port.shape[0] for port in graph.inputs if port.shape} - {None, 1}
    if fixed:
        raise graph.error(
            f"was exported for batches of {fixed.pop()} rows: export it with a dynamic first axis "
            "(dynamic_axes of torch.onnx.export), or with one row."
        )
    roles = token_inputs(graph, input_names)
    if roles or all(port.dtype in _INTEGERS for port in graph.inputs):
        _check_tokens(graph, roles)
        return "text"
    if len(graph.inputs) == 1:
        (port,) = graph.inputs
        if len(port.shape) == 2 and port.dtype in FLOATS:
            return "numeric"
        if len(port.shape) == 4 and port.dtype in (*FLOATS, "uint8"):
            return "image"
    raise graph.error(
        "does not read rows: expected one 2-D input of floats (numbers), one 4-D input of floats "
        "or uint8 (images), or the integers input_ids and attention_mask (texts). Map other names "
        "of these two with input_names of OnnxBackbone, or wrap the model in a function."
    )


def token_inputs(graph: Graph, input_names: Mapping[str, str]) -> dict[str, Port]:
    """Return the inputs for tokens, by their names in `INPUTS`."""
    ports = {port.name: port for port in graph.inputs}
    names = {role: input_names.get(role, role) for role in INPUTS}
    return {role: ports[name] for role, name in names.items() if name in ports}


def _check_tokens(graph: Graph, roles: Mapping[str, Port]) -> None:
    missing = [role for role in INPUTS[:2] if role not in roles]
    if missing:
        raise graph.error(
            f"has no input {missing[0]!r}: if it has another name, say so with input_names="
            f"{{{missing[0]!r}: NAME}} of OnnxBackbone."
        )
    others = [port for port in graph.inputs if port not in roles.values()]
    if others:
        raise graph.error(
            f"has the input {others[0].name!r}, which a tokenizer does not give: expected "
            f"{list(INPUTS)}. Export the model without it, or map its name with input_names."
        )
    for port in roles.values():
        if port.dtype not in _INTEGERS or len(port.shape) != 2:
            raise graph.error(f"has an input of tokens that is not (n, n_tokens) integers: {port}.")


def output_of(graph: Graph, name: str | None) -> Port:
    """Return the output that gives the features.

    Parameters
    ----------
    graph : Graph
        The graph.
    name : str or None
        The output that the user wants.

    Returns
    -------
    output : Port
        The named one, "sentence_embedding", "pooler_output", or the only one that is a vector for
        each row, or for each token.

    Raises
    ------
    ValueError
        If there is no such output, or several are possible.
    """
    outputs = {port.name: port for port in graph.outputs}
    if name is not None and name not in outputs:
        raise graph.error(f"has no output {name!r}: expected one of {list(outputs)}.")
    possible = {key: port for key, port in outputs.items() if len(port.shape) in (2, 3)}
    preferred = [vector for vector in _VECTORS if vector in possible]
    if name is None and len(outputs) > 1 and preferred:
        name = preferred[0]
    if name is None and len(possible) > 1:
        raise graph.error(
            f"has several outputs that may be features, {list(possible)}: choose one with "
            "output_name of OnnxBackbone."
        )
    port = outputs[name] if name is not None else next(iter(possible.values()), None)
    if port is None or port.name not in possible or port.dtype not in FLOATS:
        raise graph.error(
            "returns no vector for each row: expected an output of floats of shape (n, d), or "
            "(n, n_tokens, d). Export the model with pooling."
        )
    return port
