"""Faults on purpose: silence, lies, crashes and old backups, and the matrix of what each of them may cost."""
