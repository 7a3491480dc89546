"""Classifiers on cached features of frozen models."""
