"""Readers of annotation files: one function for each family of datasets, one signature."""
