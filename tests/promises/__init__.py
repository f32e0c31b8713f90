"""Tests named after the rows of promises the engine keeps, each with its full and its shorter count."""
