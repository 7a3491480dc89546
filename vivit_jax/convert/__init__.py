"""Turns weights from one form into another."""
