"""What AFTClassifier and AFTRegressor share: a skorch net that learns from foundation features.

In the order in which ``fit`` needs them:

- ``_estimator``: the estimator, and all that overrides skorch; nothing here imports it;
- ``_schema``, ``_targets``, ``_training_data``: rows, targets, features and weights are checked;
- ``_plan``: every "auto" becomes a number;
- ``_inputs``: the fitted preprocessor, and batches;
- ``_components``, ``_callbacks``, ``_mixed_precision``: the network and what trains it;
- ``_training``, ``_losses``: epochs, steps and the loss;
- ``_prediction``: outputs of a trained network;
- ``_state``: what was fitted, and what exists only for training;
- ``_persistence``: what a pickle holds.
"""
