"""Converts weights from one file format to another."""
