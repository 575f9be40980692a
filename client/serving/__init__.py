"""Applying a model at a site: a table in, predictions out, nothing that leaves."""
