"""Reports whose every fact is an entry of a log, and whose every gap says so."""
