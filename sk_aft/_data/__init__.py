"""Rows as given by the user, as tensors, and as batches with their foundation features."""
