"""The base of AFTClassifier and AFTRegressor: a skorch net that learns from foundation features.

In the order in which ``fit`` needs them:

- ``_estimator``: the estimator, and everything that overrides skorch; nothing here imports it;
- ``_schema``, ``_targets``, ``_training_data``: rows, targets, features and weights are checked;
- ``_plan``: every "auto" that depends on the rows;
- ``_inputs``: the fitted preprocessor, and batches;
- ``_schedule``: every "auto" that depends on the network: steps and learning rates;
- ``_components``, ``_callbacks``, ``_mixed_precision``: the network and its training tools;
- ``_training``, ``_losses``: epochs, steps and the loss;
- ``_prediction``: outputs of a trained network;
- ``_state``: the fitted student, and the state that exists only for training;
- ``_persistence``: the contents of a pickle.
"""
