"""Benchmarks of speed: each figure and its floor are measured in one run."""
