"""Scenarios: what may happen to a federation, in one TOML file, run, judged and compared."""
