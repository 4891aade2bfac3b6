"""Latency, accuracy and agreement measurements."""
