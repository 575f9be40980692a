"""Checking a log without trusting whoever keeps it."""
