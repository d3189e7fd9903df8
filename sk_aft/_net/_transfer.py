"""The transfer objective: built for the student, then shown the rows."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.base import is_classifier
from torch import Tensor, nn

from sk_aft._batches import RowBatches
from sk_aft._prepared_inputs import Inputs
from sk_aft.modules import LastLinearInput
from sk_aft.transfer import TransferRows, make_transfer
from sk_aft.transfer._base import side_by_side

if TYPE_CHECKING:
    from sk_aft._net._student_net import StudentNet


def build_transfer(net: StudentNet) -> nn.Module:
    """Return the transfer objective that the parameters ask for."""
    parameters = net.get_params_for("transfer")
    transfer = make_transfer(
        net._chosen_transfer,
        net.n_foundation_features_,
        n_student_features=_student_features(net, net._example).shape[1],
        n_outputs=net.n_outputs_,
        feature_slices=net._feature_slices,
        column_slices=net._column_slices,
        **parameters,
    )
    return copy.deepcopy(transfer).to(net.device_)


def prepare_transfer(net: StudentNet, train: RowBatches, seed: int) -> None:
    """Let the transfer objective look at the rows; it may replace their features."""
    prepare = getattr(net.transfer_, "prepare", None)
    if prepare is None:
        return

    def student_features(rows: np.ndarray) -> np.ndarray:
        pieces = [
            _student_features(net, train.inputs.take(piece, net.device_)).cpu().numpy()
            for piece in np.array_split(rows, -(-len(rows) // net.batch_size))
        ]
        return np.concatenate(pieces)

    targets = prepare(
        TransferRows(
            features=train.features,
            targets=np.asarray(train.targets),
            is_labeled=train.is_labeled,
            is_known=~train.features.is_masked,
            feature_slices=train.features.feature_slices,
            n_classes=net.n_outputs_ if is_classifier(net) else None,
            student_features=student_features,
            seed=seed,
            shared=net._shared_by_trials if net._shared_by_trials is not None else {},
        )
    )
    net._replaces_features = targets is not None
    if targets is not None:
        train.features = train.features.replaced_by(targets)


def _student_features(net: StudentNet, inputs: Inputs) -> Tensor:
    """Return the student's features of some rows, as they are before training."""
    last_linear = LastLinearInput(net.module_)
    was_training = net.module_.training
    net.module_.eval()
    try:
        with torch.no_grad():
            _, features = net.infer(inputs)
            return last_linear.take() if features is None else side_by_side(features)
    finally:
        last_linear.remove()
        net.module_.train(was_training)
