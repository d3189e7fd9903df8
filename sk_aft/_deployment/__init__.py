"""Saves and publishes students as folders of data, and reads them again."""
