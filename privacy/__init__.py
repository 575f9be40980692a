"""Mechanisms, plans, accounting, the ledger and secure aggregation.

Knows neither Flower nor torch; its only I/O is the site's store.
"""
