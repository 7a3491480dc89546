"""Checks the files of a dataset, and packs them into records."""
