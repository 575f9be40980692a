"""A federation on a laptop: the very ServerApp and ClientApp objects that are deployed, with real cryptography, in
one process.
"""
