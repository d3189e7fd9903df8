"""How accurate students are.

Every run is a line of JSON, so that a suite goes on where it stopped.
"""
