"""Attacks on the protocol, the sites and the server, and the builds in which they succeed."""
