"""Populations without a file: generators of labelled rows whose concept is a number that a schedule can move."""
