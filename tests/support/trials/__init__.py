"""Trials of load and faults with real processes: a federation that needs no torch, who strikes it, and an oracle."""
