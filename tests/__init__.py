"""Tests of the Python package and of the whole, end to end."""
