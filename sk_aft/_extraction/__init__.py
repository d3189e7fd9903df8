"""From rows to foundation features: everything behind FoundationFeatureExtractor.

In the order in which rows pass them:

- ``_door``: rows are recognised and checked, once;
- ``_reader``: which part of the rows a model reads;
- ``_fitted_readers``, ``_feature_blocks``: what the first rows decide: layers, widths and names;
- ``_source``, ``_stream``: rows of several models, all at once or in pieces;
- ``_embedding``: one model: look up rows in the store, compute the others;
- ``_model_run``: the model runs, in batches that fit into memory;
- ``_destination``: rows are claimed, and their features are written;
- ``_row_faults``: rows that the model cannot read;
- ``_device_workers``: one process for each of several devices;
- ``_frozen_models``: parameters and copies of an extractor;
- ``_batch_function``: an extractor as a function from a batch to a batch.
"""
