"""Answers recorded from real providers, served over HTTP and read through the package."""
