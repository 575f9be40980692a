"""Engines that run many simulated sites fast."""
