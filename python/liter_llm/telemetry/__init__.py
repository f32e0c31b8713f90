"""Traces, metrics, logs and records of calls, through what the host has."""
