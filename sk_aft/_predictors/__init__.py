"""Predictors as teachers: what they predict are soft targets of a student."""
