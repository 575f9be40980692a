"""A federation of real processes on this machine: Flower's own programs, TLS, node keys, unmarked stores."""
