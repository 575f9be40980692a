"""What the console's pages of evidence show: read from the log, the registry and the lineage into frozen values.

Pure of HTTP and of templates. Nothing here writes but `approving`, on a person's signature.
"""
