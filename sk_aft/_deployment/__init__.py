"""Deployed students: what the torch side writes and reads."""
