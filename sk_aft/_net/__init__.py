"""What AFTClassifier and AFTRegressor share: a skorch net that learns from foundation features.

``_student_net`` has `StudentNet` and the order in which a fit goes; the rest is in the order that
a fit needs it:

- ``_going_on``: what an earlier fit learned is dropped, or kept;
- ``_preparation``: rows become batches;
- ``_seeds``: random numbers of torch;
- ``_building``, ``_callbacks``, ``_transfer``: the network and what trains it;
- ``_training``, ``_losses``: epochs, steps and the loss;
- ``_prediction``: outputs of the trained network;
- ``_saving``: what a pickle holds.
"""

from sk_aft._net._student_net import StudentNet

__all__ = ["StudentNet"]
