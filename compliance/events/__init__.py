"""Facts as signed events of a closed schema: what may be said, by whom, in which log."""
