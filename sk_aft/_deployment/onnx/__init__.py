"""Export of a student to one ONNX graph, from raw rows to probabilities."""

from sk_aft._deployment.onnx._export import export_student

__all__ = ["export_student"]
