"""Benchmarks of accuracy.

Every run is a line of JSON, so suites are resumable.
"""
