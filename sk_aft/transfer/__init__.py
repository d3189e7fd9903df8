"""Transfer objectives: terms of the loss by which a student learns from foundation models."""

from sk_aft.transfer._b_tuning import BTuning
from sk_aft.transfer._base import TransferMethod, TransferRows
from sk_aft.transfer._combination import Combination
from sk_aft.transfer._factor_transfer import FactorTransfer
from sk_aft.transfer._feature_distillation import FeatureDistillation
from sk_aft.transfer._feature_regression import FeatureRegression
from sk_aft.transfer._kernel_alignment import KernelAlignment
from sk_aft.transfer._kernel_distillation import KernelDistillation
from sk_aft.transfer._methods import default_beta, make_transfer
from sk_aft.transfer._pooled_distillation import PooledDistillation
from sk_aft.transfer._probe_distillation import ProbeDistillation
from sk_aft.transfer._product_kernel_alignment import ProductKernelAlignment
from sk_aft.transfer._relational_distillation import RelationalDistillation

__all__ = [
    "BTuning",
    "Combination",
    "FactorTransfer",
    "FeatureDistillation",
    "FeatureRegression",
    "KernelAlignment",
    "KernelDistillation",
    "PooledDistillation",
    "ProbeDistillation",
    "ProductKernelAlignment",
    "RelationalDistillation",
    "TransferMethod",
    "TransferRows",
    "default_beta",
    "make_transfer",
]
