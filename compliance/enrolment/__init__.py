"""Enrolling at the federation's root, and the files that parties hand each other."""
