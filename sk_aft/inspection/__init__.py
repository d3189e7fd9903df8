"""Figures of what students learned, from what, and what more labels would bring."""

from sk_aft.inspection._label_curve import LabelCurveDisplay
from sk_aft.inspection._teacher_weights import TeacherWeightsDisplay
from sk_aft.inspection._transfer import TransferDisplay

__all__ = ["LabelCurveDisplay", "TeacherWeightsDisplay", "TransferDisplay"]
