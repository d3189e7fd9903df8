"""Transfer objectives: what a student's features owe to the foundation features."""

from sk_aft.transfer._base import TransferMethod, TransferRows
from sk_aft.transfer._kernel_alignment import KernelAlignment
from sk_aft.transfer._methods import make_transfer

__all__ = ["KernelAlignment", "TransferMethod", "TransferRows", "make_transfer"]
