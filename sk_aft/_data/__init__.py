"""Rows as the user gave them, as tensors, and as batches beside their foundation features."""
