"""Graphs whose weights lie in other files are recognised."""

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.onnx_ml_pb2 import DESCRIPTOR

from sk_aft.serving import load
from sk_aft.serving._external_data import (
    DATA_LOCATION,
    EXTERNAL_DATA,
    FIELDS,
    has_external_data,
)
from sk_aft.serving._onnx import OnnxNetwork
from tests._deployment.students import LABELS, TEXTS, small


def external(location="../secret"):
    tensor = TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return tensor


def graph(*, nodes=(), **others):
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    own = helper.make_node("Identity", ["x"], ["y"])
    return helper.make_graph([*nodes, own], "graph", [x], [y], **others)


def constant(**values):
    node = helper.make_node("Constant", [], ["c"])
    for name, value in values.items():
        node.attribute.append(helper.make_attribute(name, value))
    return node


def sparse():
    places = numpy_helper.from_array(np.array([0]), "places")
    return helper.make_sparse_tensor(external(), places, [1])


def function():
    return helper.make_function(
        "own", "f", [], ["c"], [constant(value=external())], [helper.make_opsetid("", 18)]
    )


@pytest.mark.parametrize(
    "model",
    [
        lambda: helper.make_model(graph(initializer=[external()])),
        lambda: helper.make_model(graph(sparse_initializer=[sparse()])),
        lambda: helper.make_model(graph(nodes=[constant(value=external())])),
        lambda: helper.make_model(graph(nodes=[constant(sparse_value=sparse())])),
        lambda: helper.make_model(graph(nodes=[constant(body=graph(initializer=[external()]))])),
        lambda: helper.make_model(graph(), functions=[function()]),
    ],
)
def test_tensors_of_other_files(model, tmp_path):
    content = model().SerializeToString()
    assert has_external_data(content)
    with pytest.raises(ValueError, match=r"weights lie in other files, which are not read"):
        OnnxNetwork("model.onnx", content=content)
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=r"weights lie in other files, which are not read"):
        OnnxNetwork(tmp_path / "model.onnx")


def test_numbers_of_bytes_may_be_written_in_many_ways():
    tensor = b"\x6a\x00"  # external_data, empty
    for prefix in (b"\xea\x00", b"\xea\x80\x80\x80\x00"):
        graph = b"\x2a" + bytes([len(prefix) + 1]) + prefix + b"\x00"
        assert has_external_data(b"\xba\x80\x00" + bytes([len(graph)]) + graph)
    graph = b"\x2a\x02" + tensor
    assert has_external_data(b"\x3a\x04" + graph)


@pytest.mark.parametrize("content", [b"%PDF-1.7", b"\x3a\x05\x01", b"\x3a", b"\xff" * 30, b"\x0b"])
def test_other_content(content):
    with pytest.raises(ValueError, match=r"it is cut off|unknown"):
        has_external_data(content)


def test_all_fields_that_lead_to_tensors_are_known():
    """So that a newer version of the format does not hide tensors from the check."""
    messages = DESCRIPTOR.message_types_by_name
    fields = messages["TensorProto"].fields_by_name
    assert (fields["external_data"].number, fields["data_location"].number) == (
        EXTERNAL_DATA,
        DATA_LOCATION,
    )
    leading = {"TensorProto"}
    for _ in messages:
        leading |= {
            name
            for name, message in messages.items()
            if any(f.message_type and f.message_type.name in leading for f in message.fields)
        }
    found = {
        name: {
            field.number: field.message_type.name
            for field in messages[name].fields
            if field.message_type and field.message_type.name in leading
        }
        for name in leading
    }
    assert found == FIELDS


def test_names_of_columns_are_not_taken_for_external_data(tmp_path):
    towns = pd.Categorical(["location", "external_data"] * 20)
    rows = pd.DataFrame({"location": towns, "data_location": np.arange(40.0), "text": TEXTS})
    fitted = small(module__start="random").fit(rows, LABELS)
    fitted.save_pretrained(tmp_path, onnx=True)
    assert b"\x0a\x08location" in (tmp_path / "onnx/model.onnx").read_bytes()
    served = load(tmp_path)
    np.testing.assert_allclose(served.predict_proba(rows), fitted.predict_proba(rows), atol=1e-4)


def test_a_format_of_onnx_runtime_is_not_read(tmp_path):
    import onnxruntime

    model = helper.make_model(graph(), opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnx.checker.check_model(model)
    onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    with pytest.raises(ValueError, match="not a readable ONNX model"):
        OnnxNetwork(tmp_path / "model.ort")
