"""Figures of what students learned, from what, and what they cost."""

from sk_aft.inspection._comparison import ComparisonDisplay
from sk_aft.inspection._deferral import DeferralDisplay
from sk_aft.inspection._label_curve import LabelCurveDisplay
from sk_aft.inspection._teacher_weights import TeacherWeightsDisplay
from sk_aft.inspection._transfer import TransferDisplay

__all__ = [
    "ComparisonDisplay",
    "DeferralDisplay",
    "LabelCurveDisplay",
    "TeacherWeightsDisplay",
    "TransferDisplay",
]
